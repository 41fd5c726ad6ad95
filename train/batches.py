"""In which order examples are trained on, and how batches make optimizer steps.

The order is a pure function of the seed and the step: batch ``k`` of a run is the same on any number of processes, and
process ``r`` of ``n`` takes the batches ``r``, ``r + n``, ``r + 2n``, ... So the place in the data is a number.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, get_worker_info

from latent_reason.data.streaming import Stream
from latent_reason.model.batch import MixedBatch


class LengthGrouped:
    """Batches of indices of rows of similar length, endlessly: in each epoch every row at most once, in another order.

    Raises:
        ValueError: fewer rows than processes.
    """

    def __init__(self, lengths: list[int], batch_size: int, seed: int, window: int = 8, world: int = 1):
        if len(lengths) < world:
            raise ValueError(
                f"data.items: {len(lengths)} training item{'s' * (len(lengths) != 1)} are too few for {world} processes, "
                "which share them. Add items, or use fewer processes."
            )
        self.lengths, self.seed, self.window, self.world = lengths, seed, window, world
        self.batch_size = max(1, min(batch_size, len(lengths) // world))

    @property
    def per_epoch(self) -> int:
        return len(self.lengths) // self.batch_size

    def epoch(self, number: int) -> list[list[int]]:
        """All batches of one epoch."""
        random = torch.Generator().manual_seed(self.seed * 100_003 + number)
        order = torch.randperm(len(self.lengths), generator=random).tolist()
        order = order[: len(order) // self.batch_size * self.batch_size]
        found = []
        for start in range(0, len(order), self.batch_size * self.window):
            near = sorted(order[start : start + self.batch_size * self.window], key=lambda i: self.lengths[i])
            batches = [near[i : i + self.batch_size] for i in range(0, len(near), self.batch_size)]
            found += [batches[i] for i in torch.randperm(len(batches), generator=random).tolist()]
        return found

    def batches(self, rank: int = 0, start: int = 0) -> Iterator[tuple[int, list[int]]]:
        """(number in the run, indices) of the batches of process ``rank``, after its first ``start`` ones."""
        number, epoch, batches = start * self.world + rank, -1, []
        while True:
            if number // self.per_epoch != epoch:
                epoch = number // self.per_epoch
                batches = self.epoch(epoch)
            yield number, batches[number % self.per_epoch]
            number += self.world


class StreamedRows:
    """Lists of ``batch_size`` examples of a stream, read by ``num_workers`` processes. The place is how many lists were
    read, and how many examples of each worker. A resumed stream passes over these without reading them."""

    def __init__(self, stream: Stream, batch_size: int, num_workers: int, place: dict[str, Any] | None = None):
        self.lists, self.workers = 0, [0] * max(1, num_workers)
        if place:
            self.lists, self.workers = place["lists"], list(place["workers"])
            if len(self.workers) != max(1, num_workers):
                raise ValueError(
                    f"data.num_workers={num_workers}: the stopped run read its stream with {len(self.workers)}. Set that."
                )
            stream.skip(self.workers)
        self.loader = DataLoader(
            stream,
            batch_size,
            num_workers=num_workers,
            collate_fn=_with_worker,
            generator=torch.Generator(),  # otherwise it takes a number from those of training
        )

    def __iter__(self) -> Iterator[list]:
        for worker, rows in islice(self.loader, self.lists, None):
            self.lists += 1
            self.workers[worker] += len(rows)
            yield rows

    def place(self) -> dict[str, Any]:
        return {"lists": self.lists, "workers": list(self.workers)}


def _with_worker(rows: list) -> tuple[int, list]:
    worker = get_worker_info()
    return (worker.id if worker else 0), rows


class StepBatch:
    """One batch of an optimizer step, and the weights of the loss parts in all batches of the step on this process.

    It is no dataclass, so that Lightning's precision plug-ins leave box coordinates and loss weights as they are.
    """

    def __init__(self, batch: MixedBatch, loss_weights: dict[str, torch.Tensor]):
        self.batch, self.loss_weights = batch, loss_weights

    def to(self, device: torch.device | str) -> StepBatch:
        return StepBatch(self.batch.to(device), {name: w.to(device) for name, w in self.loss_weights.items()})


class HeldOutBatch:
    """A batch of held-out examples. ``number`` is its place among all of them. One that only keeps a process busy does not
    count (``counts``). No dataclass, as above."""

    def __init__(self, batch: MixedBatch, number: int, counts: bool):
        self.batch, self.number, self.counts = batch, number, counts

    def to(self, device: torch.device | str) -> HeldOutBatch:
        return HeldOutBatch(self.batch.to(device), self.number, self.counts)


class BatchSource(Protocol):
    """Training batches of one process, from a place on."""

    def start(self, place: dict[str, Any] | None) -> Iterator[MixedBatch]: ...

    def place(self) -> dict[str, Any]:
        """The place after the last batch, as JSON."""
        ...


class StepBatches:
    """Batches, read ``count`` at a time (those of one optimizer step), so that each knows the loss weights of all.

    Lightning saves and restores the place with ``state_dict`` and ``load_state_dict``. It is exact after a whole step.
    """

    def __init__(self, source: BatchSource, count: int, loss_weights: Callable[[MixedBatch], dict[str, torch.Tensor]]):
        self.source, self.count, self.loss_weights = source, count, loss_weights
        self.step: list[MixedBatch] = []  # batches of the current step
        self.wait_seconds = 0.0  # spent on reading and collating so far, while training waited
        self._place: dict[str, Any] | None = None

    def __len__(self) -> int:
        """Endless. Without a length Lightning would read a batch ahead, and the place would be ahead of training."""
        return sys.maxsize

    def __iter__(self) -> Iterator[StepBatch]:
        batches = self.source.start(self._place)
        while step := self._read(batches):
            weights = [self.loss_weights(batch) for batch in step]
            total = {name: torch.stack([w[name].float() for w in weights]).sum() for name in weights[0]}
            yield from (StepBatch(batch, total) for batch in step)

    def _read(self, batches: Iterator[MixedBatch]) -> list[MixedBatch]:
        began = time.monotonic()
        self.step = list(islice(batches, self.count))
        self.wait_seconds += time.monotonic() - began
        return self.step

    def state_dict(self) -> dict[str, Any]:
        return self.source.place()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._place = state
