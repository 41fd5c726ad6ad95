"""Whether what a run keeps on its GPU can fit at all, before data are encoded and the first step is taken.

Weights, gradients and the optimizer's state are counted, and nothing else: a run that is refused could not be trained, and
one that is not may still need more. ``python -m train.plan`` counts a whole step.
"""

from __future__ import annotations

import torch

from latent_reason.model.reasoner import LatentReasoner

from .batch_sizes import launched
from .config import StagedConfig

GIB = 2**30
STATES = {"adamw": 2, "muon": 1}  # numbers of 32 bits that the optimizer keeps for a weight, at least


def gpu_here(accelerator: str) -> tuple[str, float] | None:
    """(name, GiB) of the GPU of this machine; None without one, and for a run that does not use it."""
    if not torch.cuda.is_available() or accelerator not in ("auto", "gpu", "cuda"):
        return None
    found = torch.cuda.get_device_properties(0)
    return found.name, round(found.total_memory / GIB, 1)


def least_bytes(reasoner: LatentReasoner, config: StagedConfig, processes: int) -> int:
    """Bytes that each of so many processes keeps between two steps, at least."""
    weights = sum(p.nbytes for p in reasoner.parameters())
    trained = [p for p in reasoner.parameters() if p.requires_grad]
    copies = STATES[config.optim.name] + bool(config.optim.ema_decay)
    weights += sum(p.nbytes + 4 * p.numel() * (copies + (p.element_size() < 4)) for p in trained)
    return weights // processes if config.fsdp else weights


def check_memory(reasoner: LatentReasoner, config: StagedConfig) -> None:
    """Raises ValueError where weights, gradients and optimizer state alone are more than the GPU of this machine holds."""
    found = gpu_here(config.accelerator)
    if found is None or config.fsdp_cpu_offload:
        return
    (name, memory), processes = found, launched(config)
    needed = least_bytes(reasoner, config, processes) / GIB
    if needed > memory:
        way = "more processes" if config.fsdp else "fsdp on several GPUs"
        raise ValueError(
            f"weights, gradients and optimizer state need {needed:.1f} GiB on each of {processes} GPUs, and {name} has "
            f"{memory:g} GiB. Use {way}, or an adapter (lora.rank); `python -m train.plan RECIPE --gpus {processes} "
            f"--memory {memory:g}` lists what to change."
        )
