"""What a run of a config needs: memory of a device, arithmetic of a step, and hours on a kind of device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.distributed.device_mesh import init_device_mesh

from .. import sharding
from ..config import RLTrainingConfig, SFTConfig
from ..lit_modules import SFTModule, parameter_table
from ..trainer import set_precision
from . import rollouts, step
from .devices import Device
from .model import build_model, quantized_bytes
from .simulation import Accountant

GIB = 2**30
#: kinds of memory that are there while rollouts are decoded
STANDING = (
    "weights",
    "gathered weights",
    "gradients",
    "gradients to add up",
    "optimizer state",
    "teacher, reference",
)
CONTEXT = GIB  # of CUDA and its libraries
FRAGMENTATION = 0.05  # of the peak, which the allocator cannot use


@dataclass(frozen=True)
class Estimate:
    """A step on each of ``gpus`` devices. ``memory`` (bytes at the peak by kind) is that of one device, ``flops`` and
    ``counts`` are those of all devices together, ``decoding`` the bytes that one device reads to decode rollouts."""

    gpus: int
    parameters: dict[str, tuple[int, int]]
    memory: dict[str, int]
    flops: dict[str, int]
    counts: dict[str, int]
    decoding: int = 0

    @property
    def needed(self) -> float:
        """Bytes that a device must have."""
        return sum(self.memory.values()) * (1 + FRAGMENTATION) + CONTEXT

    def seconds(self, device: Device, mfu: float) -> float:
        """Seconds of a step where arithmetic runs at this share of a device's peak, and decoding reads at its full rate."""
        return sum(self.flops.values()) / self.gpus / (mfu * device.flops) + self.decoding / device.bandwidth


def estimate(config: SFTConfig | RLTrainingConfig, gpus: int = 1, name: str | None = None, length: int = 0) -> Estimate:
    """The needs of a config.

    Args:
        name: a backbone in place of the config's or of its checkpoint's.
        length: positions of an example; 0: as many as the data have.

    Raises:
        ValueError: as a run of the config would.
    """
    with process_group(gpus if config.fsdp else 1):
        reasoner, objective = build_model(config, name)
        parameters = {part: (total, trained) for part, total, trained in parameter_table(reasoner)}
        saved = quantized_bytes(reasoner)
        accountant = Accountant(reasoner.backbone.vocab_size)
        with accountant, accountant.phase("setup", "batch"):
            if isinstance(config, RLTrainingConfig):
                work = rollouts.policy_work(config, reasoner, name)
            else:
                work = step.supervised_work(config, SFTModule(reasoner, objective, config.optim), length)
            set_precision(work.module, config.precision)
            if config.fsdp:
                sharding.check_supported(config, work.module)
                with accountant.phase("setup", "weights"):
                    sharding.shard(reasoner, init_device_mesh("cpu", (gpus,)))
        measured = step.measure(work, accountant, config.optim, config.precision)
    memory = measured.memory | {"weights": measured.memory["weights"] - saved}
    if gpus > 1 and not config.fsdp:
        memory["gradients to add up"] = memory.get("gradients", 0)  # DDP copies them into buckets
    flops, traffic = dict(measured.flops), 0
    if work.decoding:
        standing = {kind: n for kind, n in memory.items() if kind in STANDING} | {
            "key-value cache": work.decoding.cache
        }
        memory = max(memory, standing, key=lambda kinds: sum(kinds.values()))
        flops["decoding"], traffic = work.decoding.flops, work.decoding.traffic
    return Estimate(
        gpus,
        parameters,
        memory,
        {phase: n * gpus for phase, n in flops.items()},
        {name: n * gpus for name, n in work.counts.items()},
        traffic,
    )


@contextmanager
def process_group(size: int) -> Iterator[None]:
    """This process as the first of ``size`` that do not exist; nothing for one."""
    if size == 1:
        yield
        return
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", rank=0, world_size=size, store=FakeStore())
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
