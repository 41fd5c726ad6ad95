"""All that training changes, taken from a trainer and put back into one, so that a stopped run continues exactly.

Tensors that all processes share (weights that train and their averages, buffers, the optimizer's state, a method's
teacher) have a name. Everything else is plain values of each process: schedule, loops, place in the data, counters and
random numbers. Frozen weights are not kept: a resumed run loads or makes them again, and a fingerprint says whether they
are the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import lightning as L
import torch

from . import sharding
from .averaging import WeightAverage
from .lit_modules import TrainingModule
from .random_numbers import random_state

FORMAT = 1
SAMPLES = 256  # values of a frozen weight that its fingerprint reads


@dataclass
class TrainingState:
    """``tensors`` by name, of which a sharded one holds this process's part; ``values`` of this process, as JSON."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)


def capture(trainer: L.Trainer, module: TrainingModule, frozen: str) -> TrainingState:
    """The state after an optimizer step. Tensors are those that train, not copies. ``frozen``: the fingerprint of what
    does not train."""
    values = {
        "format": FORMAT,
        "step": trainer.global_step,
        "world": trainer.world_size,
        "batches_per_step": module.batches_per_step,
        "frozen": frozen,
        "data": trainer.datamodule.digest(),
        "loops": trainer.fit_loop.state_dict(),
        "schedule": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "rates": [group["lr"] for group in trainer.optimizers[0].param_groups],
        "precision": trainer.precision_plugin.state_dict(),
        "callbacks": {c.state_key: state for c in trainer.callbacks if (state := c.state_dict())},
        "module": module.counters(),
        "random": random_state(),
    }
    return TrainingState(trained_tensors(trainer, module), json.loads(json.dumps(values)))


def restore(trainer: L.Trainer, module: TrainingModule, state: TrainingState, frozen: str) -> None:
    """Put a state back whose weights are in place already (they are read into :func:`trained_tensors`). Random numbers
    follow when the training loop starts.

    Raises:
        ValueError: frozen weights or data are not those of the stopped run, or its steps took more or fewer batches.
    """
    values = state.values
    if values["batches_per_step"] != module.batches_per_step:
        wanted, rows = values["batches_per_step"], trainer.datamodule.data.global_batch_size
        can_accumulate = module.automatic_optimization and wanted % module.data_parallel_size == 0
        way = f"Set data.micro_batch_size={rows // wanted}" if can_accumulate else "Use as many processes"
        raise ValueError(
            f"resume: the stopped run took {wanted} batches a step, over accumulation and processes, and this run takes "
            f"{module.batches_per_step}. {way}, so that its steps see the same examples."
        )
    if values["world"] == trainer.world_size and values["frozen"] != frozen:
        raise ValueError(
            "resume: frozen weights differ from those of the stopped run. The checkpoint that the run started from, or "
            "its teacher or reference model, was changed. Put it back, or start a new run."
        )
    if values["data"] != trainer.datamodule.digest():
        raise ValueError(
            "resume: the training data differ from those of the stopped run, so its place in them means nothing. Put them "
            "back, or start a new run from the state with train.export_state and --init_from."
        )
    for group, rate in zip(trainer.optimizers[0].param_groups, values["rates"], strict=True):
        group["lr"] = rate
    for config, saved in zip(trainer.lr_scheduler_configs, values["schedule"], strict=True):
        config.scheduler.load_state_dict(saved)
    before = values["batches_per_step"] * module.tensor_parallel_size // values["world"]
    trainer.fit_loop.load_state_dict(recounted(values["loops"], before, trainer.accumulate_grad_batches))
    trainer.precision_plugin.load_state_dict(values["precision"])
    for callback in trainer.callbacks:
        if callback.state_key in values["callbacks"]:
            callback.load_state_dict(values["callbacks"][callback.state_key])
    module.load_counters(values["module"])


def recounted(loops: dict[str, Any], before: int, now: int) -> dict[str, Any]:
    """The state of Lightning's loops, whose counts of batches of this process are those of steps of ``now`` batches and
    not of ``before``: an optimizer step ends where a count is a multiple of that."""
    progress = loops["epoch_loop.batch_progress"]
    counts = {}
    for name in ("total", "current"):
        more = progress[name]["ready"] * (now - before) // before
        counts[name] = {kind: n + more for kind, n in progress[name].items()}  # the last one has not completed
    return loops | {"epoch_loop.batch_progress": progress | counts}


# -- tensors -----------------------------------------------------------------------------------------------------------
def trained_tensors(trainer: L.Trainer, module: TrainingModule) -> dict[str, torch.Tensor]:
    """Weights that train, their averages, buffers, the optimizer's state, and a teacher that follows the model, by name."""
    kept = {name for name, p in module.named_parameters() if p.requires_grad}  # tied weights once
    kept |= {name for name, _ in module.named_buffers()}
    tensors = {f"module/{n}": t for n, t in module.state_dict().items() if n in kept}
    teacher, moves = module.teacher()
    if teacher is not None and moves:
        tensors |= {f"teacher/{n}": t for n, t in teacher.state_dict().items()}
    for callback in trainer.callbacks:
        if isinstance(callback, WeightAverage):
            tensors |= {f"average/{n}": t for n, t in callback.averages.items()}
    names = parameter_names(module)
    for p, state in trainer.optimizers[0].state.items():
        tensors |= {f"optimizer/{names[p]}/{key}": value for key, value in state.items()}
    return tensors


def parameter_names(module: TrainingModule) -> dict[torch.nn.Parameter, str]:
    return {p: name for name, p in module.named_parameters() if p.requires_grad}


def make_optimizer_state(trainer: L.Trainer, module: TrainingModule, sizes: dict[str, tuple]) -> None:
    """Give the optimizer empty tensors of the sizes of ``optimizer/PARAMETER/KEY``, sharded as the parameter is, which a
    state is then read into.

    Raises:
        ValueError: a parameter that this run does not train.
    """
    by_name = {name: p for p, name in parameter_names(module).items()}
    for key, (shape, dtype) in sizes.items():
        kind, _, rest = key.partition("/")
        if kind != "optimizer":
            continue
        name, _, part = rest.rpartition("/")
        if name not in by_name:
            raise ValueError(f"resume: the state has an optimizer state of {name}, which this run does not train.")
        p = by_name[name].detach()
        is_like = tuple(shape) == tuple(p.shape)
        made = torch.empty_like(p, dtype=dtype) if is_like else torch.empty(shape, dtype=dtype, device=p.device)
        trainer.optimizers[0].state[by_name[name]][part] = made


def fingerprint(module: TrainingModule) -> str:
    """Hash of samples of every frozen weight, the reference model's included; of this process's part of sharded ones."""
    found = blake2b(digest_size=16)
    for name, p in module.frozen_parameters():
        local = sharding.local(p).detach().flatten()
        chosen = local[:: max(1, local.numel() // SAMPLES)][:SAMPLES]
        found.update(f"{name} {local.dtype} {tuple(p.shape)} ".encode())
        found.update(chosen.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
