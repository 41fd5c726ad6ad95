"""How the rows of an optimizer step are shared: among processes, and among the passes of each (gradient accumulation).

A batch size of a recipe holds for any number of devices: ``data.global_batch_size`` rows are shared by all data-parallel
processes, each of which takes ``data.micro_batch_size`` of them at a time. Processes that share matrices
(``tensor_parallel_size``) read the same rows, and count once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from .config import RLTrainingConfig, RunConfig
from .config.machine import count_processes

TRIPLE = 3  # variants of an item with rl.evidence_triples
Config = TypeVar("Config", bound=RunConfig)


def launched(config: RunConfig) -> int:
    """The processes that train together."""
    here, nodes = count_processes(config)
    return here * nodes


def data_parallel_size(config: RunConfig, processes: int) -> int:
    """Processes, or groups of those that share matrices, each with rows of its own."""
    return max(1, processes // getattr(config, "tensor_parallel_size", 1))


def rows_per_process(config: RunConfig, processes: int) -> int:
    """Rows of an optimizer step on each data-parallel process; in reinforcement learning, items of a batch of rollouts.

    Raises:
        ValueError: the processes cannot share them equally; names the nearest choices that they can.
    """
    rows, readers = config.data.global_batch_size, data_parallel_size(config, processes)
    if rows % readers:
        raise ValueError(
            f"data.global_batch_size={rows} cannot be shared equally by {readers} data-parallel processes. Set "
            f"data.global_batch_size to {either(multiples(rows, readers))}, or the number of data-parallel processes to "
            f"{either(divisors(rows, readers))}."
        )
    return rows // readers


def accumulation_steps(config: RunConfig, processes: int) -> int:
    """Batches of ``data.micro_batch_size`` rows that each process takes for one optimizer step of supervised training.

    Raises:
        ValueError: they do not add up to ``data.global_batch_size``; names the nearest choices that do.
    """
    rows, micro = config.data.global_batch_size, config.data.micro_batch_size
    if not micro:
        rows_per_process(config, processes)
        return 1
    readers = data_parallel_size(config, processes)
    at_once = micro * readers
    if rows % at_once:
        ways = [f"data.global_batch_size to {either(multiples(rows, at_once))}"]
        if rows % readers == 0:
            ways.append(f"data.micro_batch_size to {either(divisors(rows // readers, micro))}")
        if rows % micro == 0:
            ways.append(f"the number of data-parallel processes to {either(divisors(rows // micro, readers))}")
        raise ValueError(
            f"data.global_batch_size={rows}: {readers} data-parallel process{'es' * (readers > 1)} with "
            f"data.micro_batch_size={micro} take{'s' * (readers == 1)} {at_once} rows at a time, which do not add up to "
            f"{rows}. Set {', or '.join(ways)}."
        )
    return rows // at_once


def with_micro_batch(config: Config, processes: int) -> Config:
    """A supervised config that says how many rows a pass has. Raises ValueError as :func:`accumulation_steps`."""
    micro = config.data.global_batch_size // (
        accumulation_steps(config, processes) * data_parallel_size(config, processes)
    )
    return replace(config, data=replace(config.data, micro_batch_size=micro))


def check_batch_sizes(config: RunConfig, processes: int) -> None:
    """Raises ValueError for a batch that so many processes cannot share."""
    if not isinstance(config, RLTrainingConfig):
        accumulation_steps(config, processes)
    elif rows_per_process(config, processes) < TRIPLE and config.rl.evidence_triples:
        raise ValueError(
            "rl.evidence_triples gives each item three times, so "
            f"data.global_batch_size={config.data.global_batch_size} on {processes} process{'es' * (processes > 1)} is "
            f"too few. Set it to {TRIPLE * processes} or more."
        )


def multiples(number: int, of: int) -> list[int]:
    """The nearest multiples of a number, below and above."""
    below = number // of * of
    return [n for n in (below, below + of) if n]


def divisors(number: int, near: int) -> list[int]:
    """The divisors of a number that are nearest to another one, below and above."""
    found = [n for n in range(1, number + 1) if number % n == 0]
    return [*[n for n in found if n < near][-1:], *[n for n in found if n > near][:1]]


def either(numbers: list[int]) -> str:
    return " or ".join(map(str, numbers))
