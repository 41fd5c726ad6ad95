"""Traces of a packed set one after the other, for training on more than fits into memory.

The ``datasets`` library (the extra ``data``) deals the shards out to processes and their workers and keeps the place.
An epoch gives every item once over all of them, however many shards there are; its order is a pure function of
(seed, epoch).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset

from ..errors import pip_install
from ..trace import Trace
from . import packed
from .errors import DataError
from .native import trace_of
from .pictures import ImageFolder, Limits
from .rows import row_of


def items(shards: list[str], seed: int, epoch: int, checked: bool) -> Iterator[dict]:
    """(file, raw item) of every item of some shards, those of a shard in an order of their own.

    Raises DataError for a shard that is damaged, where it is to be ``checked``.
    """
    for shard in shards:
        file = Path(shard)
        if checked and (wrong := packed.damage(file, packed.manifest(file.parent))):
            raise wrong
        opened = packed.open_shard(file)
        name = int.from_bytes(sha256(file.name.encode()).digest()[:8], "big")
        for number in opened.order(np.random.default_rng([seed, epoch, name])):
            yield {"file": file, "raw": opened.item(number)}


class Stream(IterableDataset):
    """The items of one split, epoch after epoch, those of this ``rank`` (of ``world`` processes) and worker.

    Without ``epochs`` it never ends, so that processes with an item more or less never wait for each other. ``make``
    is what becomes of a trace, in the worker. ``state_dict`` says how far it came in this process, and a stream that
    is given it goes on with the next item.

    Raises:
        ValueError: no shards of this split, fewer items than processes, or ``datasets`` is not installed.
        DataError: from the iterator, for a damaged shard (looked at once, in the first epoch) or a bad record.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str = "train",
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        epochs: int | None = None,
        make: Callable[[Trace], Any] = lambda trace: trace,
        limits: Limits | None = None,
    ):
        self.shards = [str(file) for file in packed.of_split(Path(folder), split)]
        if not self.shards:
            raise ValueError(
                f"'{folder}' holds no shards of the split '{split}'. Make some with: python -m "
                "latent_reason data pack FOLDER PACKED"
            )
        count = sum(len(packed.open_shard(Path(shard))) for shard in self.shards[:world])
        if count < world:
            raise ValueError(
                f"'{folder}' holds fewer items of the split '{split}' than the {world} processes that are "
                "to share them. Take fewer."
            )
        self.split, self.seed, self.rank, self.world, self.epochs, self.make = split, seed, rank, world, epochs, make
        self.epoch, self._dealt, self._state = 0, None, None
        self._pictures = ImageFolder(folder, limits)

    def __iter__(self) -> Iterator[Any]:
        while self.epochs is None or self.epoch < self.epochs:
            empty, self._dealt = self._state is None, self._deal()
            for found in self._dealt:
                empty = False
                yield self.make(self._trace(**found))
            self._dealt = None
            if empty:
                return  # a worker without a shard
            self.epoch += 1

    def _deal(self):
        """The ``datasets.IterableDataset`` of this epoch, at the place where it goes on."""
        try:
            from datasets import IterableDataset as Dealt
            from datasets.distributed import split_dataset_by_node
        except ImportError:
            raise ValueError(
                f"streaming needs datasets, which is not installed. Install it with: {pip_install('data')}"
            ) from None
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.shards))
        dealt = Dealt.from_generator(
            items,
            gen_kwargs={
                "shards": [self.shards[i] for i in order],
                "seed": self.seed,
                "epoch": self.epoch,
                "checked": self.epoch == 0,
            },
        )
        dealt = split_dataset_by_node(dealt, self.rank, self.world)
        if self._state is not None:
            dealt.load_state_dict(self._state)
            self._state = None
        return dealt

    def _trace(self, file: Path, raw) -> Trace:
        def warn(kind: str, sentence: str) -> None:
            warnings.warn(f"{file}:{raw.number}: {sentence}.")

        try:
            trace = trace_of(row_of(raw, file, self._pictures, warn))
            if trace.split != self.split:
                raise DataError("E05", "split", f"'{trace.split}' in a shard of '{self.split}'. Pack the set again.")
            return trace
        except DataError as error:
            raise error.at(str(file), raw.number) from None

    def state_dict(self) -> dict:
        """The place of the next item, in plain values."""
        return {"epoch": self.epoch, "dealt": self._state if self._dealt is None else self._dealt.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.epoch, self._state = state["epoch"], state["dealt"]
