"""FSDP2: every process keeps a part of each weight, of its gradient and of its optimizer state (``fsdp: true``).

Weights are gathered layer by layer at their first use in a step and stay whole until the backward pass has used them.
So processes may call a layer unequally often before that (rollouts of any length, one more pass for a batch with
sketches). Every process must go backward through the model equally often, and each time to the same weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from latent_reason.model.reasoner import LatentReasoner

from .config import StagedConfig


def shard(reasoner: LatentReasoner, mesh: DeviceMesh) -> None:
    """Split the weights of a reasoner among the processes of a mesh: each layer of its text model, and all others."""
    for layer in reasoner.backbone.text_model.layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=False)
    fully_shard(reasoner, mesh=mesh, reshard_after_forward=False)
    reasoner(LatentReasoner.latent_grid_for, None)  # FSDP takes the module that is called first for the root
    reasoner.reshard()  # that call has gathered its own weights, which an optimizer must not see whole


def is_sharded(reasoner: LatentReasoner) -> bool:
    return isinstance(reasoner, FSDPModule)


@contextmanager
def whole(reasoner: LatentReasoner) -> Iterator[None]:
    """All weights of a reasoner on every process, for decoding. Every process has to enter; inside, none waits for
    another. Does nothing to a model that is not sharded."""
    parts = [module for module in reasoner.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()


def gathered(reasoner: LatentReasoner) -> dict[str, torch.Tensor]:
    """All weights on the first process, in main memory; every process has to call this."""
    return get_model_state_dict(reasoner, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this process holds: all of it, unless it is sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def at_hand(parameters: Iterator[torch.nn.Parameter]) -> Iterator[torch.nn.Parameter]:
    """The trainable parameters that are whole at the moment."""
    return (p for p in parameters if p.requires_grad and not isinstance(p, DTensor))


def check_supported(config: StagedConfig, module) -> None:
    """Raises ValueError for what FSDP2 cannot train: where processes would go backward unequally often, or where an
    optimizer or a weight cannot be split."""
    reasoner = module.reasoner
    objective = getattr(module, "sft", None) or module.objective
    if reasoner.can_sketch and (objective.unrolls_latents or objective.latent_input == "self"):
        raise ValueError(
            f"fsdp: {config.method.name!r} with these options makes one pass for each latent of a row, and their number "
            "differs between processes. Remove the key."
        )
    if config.optim.name == "muon":
        raise ValueError("fsdp: Muon needs whole matrices. Set optim.name to adamw.")
    if config.precision == "bf16-true" or len({p.dtype for p in reasoner.parameters()}) > 1:
        raise ValueError(
            "fsdp: weights of the backbone in 16 bits cannot be split beside a head in 32 bits. Set precision to "
            "bf16-mixed, and backbone.options.dtype to float32."
        )
    if reasoner.backbone.bits:
        raise ValueError("fsdp: weights rounded to 4 bits cannot be split. Remove backbone.options.bits.")
