"""What a run of a config needs: memory of a device, arithmetic of a step, and hours on a kind of device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh

from .. import sharding
from ..batch_sizes import accumulation_steps, check_batch_sizes, with_micro_batch
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
    "gradients",
    "optimizer state",
    "averaged weights",
    "teacher, reference",
)
CONTEXT = GIB  # of CUDA and its libraries
FRAGMENTATION = 0.05  # of the peak, which the allocator cannot use


@dataclass(frozen=True)
class Estimate:
    """A step on one device: arithmetic by phase, what it learns from, and bytes that the decoding of rollouts reads.

    ``peaks`` are the bytes by kind at the moments that may need most: in the update, and while rollouts are decoded.
    ``main_memory`` are those that fsdp_cpu_offload keeps off the device, ``between`` those between two steps without fsdp,
    gradients included. ``tensor_parallel_size`` devices share a batch.
    """

    parameters: dict[str, tuple[int, int]]
    peaks: list[dict[str, int]]
    flops: dict[str, int]
    counts: dict[str, int]
    is_sharded: bool
    main_memory: dict[str, int] = field(default_factory=dict)
    between: dict[str, int] = field(default_factory=dict)
    tensor_parallel_size: int = 1
    traffic: int = 0

    def step(self, gpus: int) -> dict[str, int]:
        """What so many devices learn from in a step."""
        return {name: n * gpus // self.tensor_parallel_size for name, n in self.counts.items()}

    def memory(self, gpus: int) -> dict[str, int]:
        """Bytes of each of so many devices at the peak, by kind.

        With DDP, gradients are views of buckets, which are there all the time. Before the second step it makes new ones in
        the order of the first, beside the old.
        """
        peaks = self.peaks
        if gpus > 1 and not self.is_sharded:
            buckets = self.between["gradients"]
            peaks = [p | {"gradients": buckets} for p in peaks]
            peaks.append(self.between | {"gradients, of the first step": buckets})
        return max(peaks, key=lambda peak: sum(peak.values()))

    def needed(self, gpus: int) -> float:
        """Bytes that each of so many devices must have."""
        return sum(self.memory(gpus).values()) * (1 + FRAGMENTATION) + CONTEXT

    def seconds(self, device: Device, mfu: float) -> float:
        """Seconds of a step where arithmetic runs at this share of a device's peak, and decoding reads at its full rate."""
        return sum(self.flops.values()) / (mfu * device.flops) + self.traffic / device.bandwidth


def estimate(config: SFTConfig | RLTrainingConfig, gpus: int = 1, name: str | None = None, length: int = 0) -> Estimate:
    """The needs of a config.

    Args:
        gpus: devices that share the global batch, and sharded weights.
        name: a backbone in place of the config's or of its checkpoint's.
        length: positions of an example; 0: as many as the data have.

    Raises:
        ValueError: as a run of the config would.
    """
    if config.precision == "64-true":
        raise ValueError("precision=64-true is for tests and is not planned. Set 32-true.")
    if config.fsdp:
        sharding.make_strategy(config, gpus)  # refuses groups that do not come out even
    check_batch_sizes(config, gpus)
    if isinstance(config, SFTConfig):
        config = with_micro_batch(config, gpus)
    processes = max(2, gpus) if config.fsdp else gpus  # what is gathered cannot be seen in one, and is the same in two
    with process_group(processes if config.fsdp else 0):
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        reasoner, objective = build_model(config, mode, name)
        parameters = {part: (total, trained) for part, total, trained in parameter_table(reasoner)}
        saved = quantized_bytes(reasoner)
        offloaded = step.SPLIT if config.fsdp_cpu_offload else ()
        accountant = Accountant(reasoner.backbone.vocab_size, mode, offloaded)
        accountant.add_module(reasoner, "weights")
        with accountant, accountant.phase("setup", "batch"):
            if isinstance(config, RLTrainingConfig):
                work = rollouts.policy_work(config, reasoner, name, mode, gpus)
            else:
                options = sharding.ShardingOptions.of(config, objective)
                module = SFTModule(reasoner, objective, config.optim, options)
                times = accumulation_steps(config, gpus)
                work = step.supervised_work(module, step.longest_batch(config, module, length), times)
            sharding.check_supported(config, reasoner, objective)
            with accountant.phase("setup", "weights"):
                set_precision(work.module, config.precision)
                if config.fsdp:
                    sizes = processes // config.tensor_parallel_size, config.tensor_parallel_size
                    mesh = init_device_mesh("cpu", sizes, mesh_dim_names=(sharding.DATA, sharding.TENSOR))
                    work.module.shard(mesh)
        measured = step.measure(work, accountant, config.optim, config.precision)
    memory, main_memory = (
        {kind: n * processes // gpus if kind in step.SPLIT else n for kind, n in found.items()}
        for found in (measured.memory, measured.main_memory)
    )
    between = dict(measured.between)
    if saved:
        memory["weights"] -= saved
        between["weights"] -= saved
    size = config.tensor_parallel_size
    needs = Estimate(parameters, [memory], measured.flops, work.counts, config.fsdp, main_memory, between, size)
    return needs if work.decoding is None else with_decoding(needs, work.decoding, measured.whole)


def with_decoding(needs: Estimate, decoding: step.Decoding, whole: int) -> Estimate:
    """The needs of a step with the decoding before it, for which all weights are gathered: so many bytes of them."""
    standing = {kind: n for kind, n in needs.peaks[0].items() if kind in STANDING}
    standing |= {"gathered weights": whole, "key-value cache": decoding.cache}
    return replace(
        needs,
        peaks=[*needs.peaks, standing],
        flops=needs.flops | {"decoding": decoding.flops},
        traffic=decoding.traffic,
    )


@contextmanager
def process_group(size: int) -> Iterator[None]:
    """This process as the first of ``size``, of which the others do not exist; nothing for 0."""
    if not size:
        yield
        return
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", rank=0, world_size=size, store=FakeStore())
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
