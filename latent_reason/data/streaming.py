"""Stream the traces of a packed set, for training on data that does not fit into memory.

The ``datasets`` library (the extra ``data``) distributes shards over processes and workers and stores the position. In
one epoch every item occurs once over all processes, for any number of shards. The order is a pure function of
(seed, epoch).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from ..errors import pip_install
from ..trace import Trace
from . import packed
from .errors import DataError
from .native import trace_of
from .pictures import ImageFolder, Limits
from .rows import decode_row


def items(shards: list[str], seed: int, epoch: int, checked: bool) -> Iterator[dict]:
    """Yield file and number of every item of the shards, shuffled within each shard.

    With ``checked``, raises DataError for a damaged shard.
    """
    for shard in shards:
        file = Path(shard)
        if checked and (error := packed.find_damage(file, packed.manifest(file.parent))):
            raise error
        opened = packed.open_shard(file)
        name = int.from_bytes(sha256(file.name.encode()).digest()[:8], "big")
        for number in opened.order(np.random.default_rng([seed, epoch, name])):
            yield {"file": file, "number": number}


class Stream(IterableDataset):
    """Items of one split for this ``rank`` (of ``world`` processes) and worker, for ``epochs`` epochs.

    Without ``epochs`` the stream is infinite, so that processes with different numbers of items never wait for each
    other. ``make`` converts a trace, in the worker. ``state_dict`` stores the position of this process;
    ``load_state_dict`` continues with the next item.

    Raises:
        ValueError: no shards of this split, fewer items than processes, or ``datasets`` is not installed.
        DataError: from the iterator, for a damaged shard (checked in the first epoch) or an invalid record.
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
                f"'{folder}' has no shards of the split '{split}'. Create them with: python -m "
                "latent_reason data pack FOLDER PACKED"
            )
        count = sum(len(packed.open_shard(Path(shard))) for shard in self.shards[:world])
        if count < world:
            raise ValueError(
                f"'{folder}' has fewer items of the split '{split}' than the {world} processes. Use fewer processes."
            )
        self.split, self.seed, self.rank, self.world, self.epochs, self.make = split, seed, rank, world, epochs, make
        self.epoch = 0
        self._dataset: Any = None
        self._state: dict | None = None
        self._skipped: list[int] = []
        self._shard: tuple[Path, Any] | None = None  # the shard that was read last
        self._pictures = ImageFolder(folder, limits)

    def skip(self, counts: list[int]) -> None:
        """Yield None for the first ``counts[i]`` items of worker ``i``, without reading them."""
        self._skipped = list(counts)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        left = self._skipped[worker.id if worker else 0] if self._skipped else 0
        while self.epochs is None or self.epoch < self.epochs:
            is_empty, self._dataset = self._state is None, self._epoch_dataset()
            for item in self._dataset:
                is_empty = False
                left -= 1
                yield None if left >= 0 else self.make(self._trace(**item))
            self._dataset = None
            if is_empty:
                return  # a worker without a shard
            self.epoch += 1

    def _epoch_dataset(self):
        """The ``datasets.IterableDataset`` of this epoch, at the stored position."""
        try:
            from datasets import IterableDataset as HFIterableDataset
            from datasets.distributed import split_dataset_by_node
        except ImportError:
            raise ValueError(
                f"streaming needs datasets, which is not installed. Install it with: {pip_install('data')}"
            ) from None
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.shards))
        dataset = HFIterableDataset.from_generator(
            items,
            gen_kwargs={
                "shards": [self.shards[i] for i in order],
                "seed": self.seed,
                "epoch": self.epoch,
                "checked": self.epoch == 0,
            },
        )
        dataset = split_dataset_by_node(dataset, self.rank, self.world)
        if self._state is not None:
            dataset.load_state_dict(self._state)
            self._state = None
        return dataset

    def _trace(self, file: Path, number: int) -> Trace:
        if self._shard is None or self._shard[0] != file:
            self._shard = file, packed.open_shard(file)
        raw = self._shard[1].item(number)

        def warn(kind: str, sentence: str) -> None:
            warnings.warn(f"{file}:{raw.number}: {sentence}.")

        try:
            trace = trace_of(decode_row(raw, file, self._pictures, warn))
            if trace.split != self.split:
                raise DataError("E05", "split", f"'{trace.split}' in a shard of '{self.split}'. Pack the set again.")
            return trace
        except DataError as error:
            raise error.at(str(file), raw.number) from None

    def state_dict(self) -> dict:
        """The position of the next item, in plain values."""
        return {"epoch": self.epoch, "dealt": self._state if self._dataset is None else self._dataset.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.epoch, self._state = state["epoch"], state["dealt"]
