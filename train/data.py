"""Traces to batches: encoded once, images encoded once where the vision encoder is frozen, grouped by length; or
streamed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from rich.progress import track
from torch.utils.data import DataLoader

from latent_reason.data import native, texts
from latent_reason.data.checks import check_answered
from latent_reason.data.streaming import Stream
from latent_reason.model.batch import TEXT, MixedBatch
from latent_reason.model.processor import EncodedExample
from latent_reason.model.reasoner import LatentReasoner
from latent_reason.objectives.objective import Objective
from latent_reason.objectives.packing import collate_examples, pack_examples
from latent_reason.objectives.sketch_counts import SketchCounts
from latent_reason.trace import Trace

from .batches import HeldOutBatch, LengthGrouped, StepBatches, StreamedRows
from .config import DecoderConfig, PretrainConfig, SFTDataConfig
from .feature_cache import DiskCache, feature_bytes, with_features
from .progress import console
from .shared_examples import Peers, release, share
from .traces import traces, warn_of_left_out_records

MAX_STATISTICS_SKETCHES, MAX_FEEDBACK_ROWS = 2000, 512


def plain(text: str, vocabulary, longest: int = 128) -> EncodedExample:
    """A plain text without turns. All tokens but the first have a loss."""
    ids = vocabulary.encode_text(text, plain=True)[:longest]
    return EncodedExample(ids=ids, token_type=[TEXT] * len(ids), loss_weight=[0.0] + [1.0] * (len(ids) - 1))


def num_positions(row: EncodedExample) -> int:
    """The positions of an example, for the model or for its teacher, whichever reads more."""
    return max(len(row.ids), len(row.teacher_example.ids) if row.teacher_example else 0)


class TraceData(L.LightningDataModule):
    """Encoded examples of a recipe. ``mode`` is the form of a trace a method trains on, or ``reading``. Streamed data
    is read while training; the examples in ``rows`` are then used for the statistics of sketches only."""

    def __init__(
        self,
        data: SFTDataConfig,
        reasoner: LatentReasoner,
        objective: Objective,
        mode: str,
        seed: int,
        frozen_vision: bool,
        rows: dict[str, list[EncodedExample]] | None = None,
        peers: Peers | None = None,
    ):
        """``peers``: processes that encode the examples together, each a share."""
        super().__init__()
        self.data, self.reasoner, self.objective = data, reasoner, objective
        self.mode, self.seed, self.frozen_vision = mode, seed, frozen_vision
        self.rows: dict[str, list[EncodedExample]] = (
            {} if rows is None else rows
        )  # another run's, where they are the same
        if data.cache and not frozen_vision:
            raise ValueError(
                "data.cache requires a frozen vision encoder, but this run trains it. Remove data.cache or freeze the "
                "vision encoder."
            )
        warn = partial(console.print, style="yellow")
        self.cache = DiskCache(data.cache, data.cache_gb * 2**30, warn, data.cache_dtype) if data.cache else None
        self.replayed: list[EncodedExample] = []
        self.batch_size = data.micro_batch_size or data.global_batch_size
        self.max_length = data.max_length or reasoner.backbone.max_length
        self.longest, self.num_skipped, self.num_cached = (0, ""), 0, (0, 0)
        self.peers = peers or Peers()
        self.free_bytes = data.feature_cache_gb * 2**30 / self.peers.world  # left for features that this process caches
        self.sketch_counts = SketchCounts(reasoner) if reasoner.can_sketch else None

    def setup(self, stage: str | None = None) -> None:
        if not self.replayed:  # Lightning calls this again
            self.replayed = self.load_replayed()
        if self.rows:  # also of another run
            return
        self.objective.check(self.reasoner, packs=bool(self.data.packing_length))
        items = min(self.data.items, MAX_STATISTICS_SKETCHES) if self.data.streaming else self.data.items
        self.rows["train"], has_more = self.encode_split("train", items)
        self.rows["val"], _ = self.encode_split("val", self.data.val_items)
        self.add_up_counts()
        if has_more and not self.data.streaming:
            warn_of_left_out_records(self.data.folder, items)
        if not self.rows["train"] and self.num_skipped:
            raise ValueError(
                f"data.skip_longer: all {self.num_skipped:,} examples are longer than {self.max_length:,} positions. Raise "
                "data.max_length, or use smaller images."
            )
        if not self.rows["train"]:
            raise ValueError(
                f"data.folder: '{self.data.folder}' has no record with split train, so there are no training items."
            )
        self.report()

    def encode_split(self, split: str, n: int) -> tuple[list[EncodedExample], bool]:
        """(the first n examples, whether a folder has more). Each process of a launch encodes its share."""
        rows, has_more = self.peers.together(lambda: self.encode_share(split, n))
        return share(rows, self.peers), any(self.peers.exchange(has_more))

    def encode_share(self, split: str, n: int) -> tuple[list[tuple[int, EncodedExample]], bool]:
        """(this process's share of the first n examples with their numbers, whether it saw more)."""
        peers = self.peers
        rows: list[EncodedExample] = []
        waiting: list[EncodedExample] = []  # encoded in groups, because all images would not fit into memory
        numbers: list[int] = []  # of both
        has_more = False
        found = traces(self.data, self.mode, split, n + bool(self.data.folder), peers.rank, peers.world)
        shown = track(
            found,
            total=None if self.data.folder else len(range(peers.rank, n, peers.world)),
            description=f"{split} items of {self.data.folder or self.data.task}",
            console=console,
        )
        for number, trace in zip(count(peers.rank, peers.world), shown, strict=False):
            if number == n:
                has_more = True
                break
            kept = self.short_enough([self.encode(trace)])
            waiting, numbers = waiting + kept, numbers + [number] * len(kept)
            if len(waiting) == 64:
                rows, waiting = rows + self.cached(waiting), []
        rows += self.cached(waiting)
        return list(zip(numbers, rows, strict=True)), has_more

    def add_up_counts(self) -> None:
        """Add what all processes of a launch counted in their shares."""
        counts = self.sketch_counts.numbers() if self.sketch_counts else {}
        cached = (self.cache.hits, self.cache.misses) if self.cache else (0, 0)
        found = self.peers.exchange([self.longest, self.num_skipped, counts, cached])
        self.longest = max(tuple(longest) for longest, *_ in found)
        self.num_skipped = sum(skipped for _, skipped, *_ in found)
        if self.sketch_counts:
            self.sketch_counts.set_numbers({name: sum(one[2][name] for one in found) for name in counts})
        self.num_cached = tuple(sum(one[3][i] for one in found) for i in (0, 1))

    def report(self) -> None:
        """Print what the user should know of the examples."""
        for sentence in self.sketch_counts.sentences() if self.sketch_counts else []:
            console.print(f"Warning: {sentence}", style="yellow")
        console.print(f"longest example: {self.longest[0]:,} positions (trace '{self.longest[1]}')")
        if self.num_skipped:
            console.print(
                f"Warning: {self.num_skipped:,} examples are longer than {self.max_length:,} positions and were left out "
                "(data.skip_longer).",
                style="yellow",
            )
        if self.cache:
            self.cache.flush()
            hits, misses = self.num_cached
            console.print(f"{hits:,} of {hits + misses:,} images were read from data.cache '{self.data.cache}'.")

    def encode(self, trace: Trace) -> EncodedExample:
        """One trace, encoded for the objective.

        Raises:
            ValueError: the method cannot train on it, or it is too long; names file and row of a record.
        """
        try:
            check_answered(trace)
            row = self.objective.encode(self.reasoner, trace)
            self.check_length(row, trace)
        except ValueError as error:
            if not self.data.folder:
                raise
            raise ValueError(f"{native.locate(self.data.folder, trace.id)}: {error}") from None
        if self.sketch_counts:
            self.sketch_counts.add(self.objective.prepare_example(self.reasoner, trace))
        return row

    def check_length(self, row: EncodedExample, trace: Trace) -> None:
        """Raises ValueError if an example is longer than data.max_length and data.skip_longer is off."""
        length = num_positions(row)
        self.longest = max(self.longest, (length, trace.id))
        if length > self.max_length and not self.data.skip_longer:
            raise ValueError(
                f"trace '{trace.id}' has {length:,} positions, but an example may have {self.max_length:,} "
                f"({'data.max_length' if self.data.max_length else 'the limit of the model'}). Use smaller images (for "
                "Qwen: image.max_pixels), shorten it, or set data.skip_longer to leave such examples out."
            )

    def short_enough(self, rows: list[EncodedExample]) -> list[EncodedExample]:
        """The examples that are not longer than data.max_length; the others are counted."""
        kept = [row for row in rows if num_positions(row) <= self.max_length]
        self.num_skipped += len(rows) - len(kept)
        return kept

    def cached(self, rows: list[EncodedExample]) -> list[EncodedExample]:
        """Examples with features of a frozen vision encoder, until data.feature_cache_gb is used up."""
        if not self.frozen_vision or self.free_bytes <= 0:
            return rows
        rows = with_features(rows, self.reasoner, self.cache)
        self.free_bytes -= sum(feature_bytes(row) for row in rows)
        if self.free_bytes <= 0:
            console.print(
                f"Warning: cached features fill {self.data.feature_cache_gb:g} GB (data.feature_cache_gb). Other images are "
                "encoded again in every step.",
                style="yellow",
            )
        return rows

    def sketch_features(self, max_samples: int = MAX_STATISTICS_SKETCHES) -> list[tuple[torch.Tensor, tuple[int, int]]]:
        """Target features of training sketches with their grids, for the statistics of the target."""
        features, target = [], self.reasoner.target
        rows = [row for row in self.rows["train"] if row.spans]
        for start in range(0, len(rows), 32):
            if len(features) >= max_samples:
                break
            features += target.statistics_samples(self.collate(rows[start : start + 32]).to(self.reasoner.device))
        return features

    def feedback_batches(self) -> Iterator[MixedBatch]:
        """Batches of training examples with latents, spread over all of them, to measure how large latents are."""
        rows = [row for row in self.rows["train"] if row.spans]
        rows = rows[:: max(1, len(rows) // MAX_FEEDBACK_ROWS)][:MAX_FEEDBACK_ROWS]
        for start in range(0, len(rows), self.batch_size):
            yield self.collate(rows[start : start + self.batch_size]).to(self.reasoner.device)

    def load_replayed(self) -> list[EncodedExample]:
        """All texts and records that the recipe replays. Errors as of :meth:`encode_replayed`."""
        lines = texts.lines(self.data.replay_texts) if self.data.replay_texts else []
        records = self.encode_replayed() if self.data.replay_folder else []
        return [*(plain(text, self.reasoner.vocabulary) for text in lines), *records]

    def encode_replayed(self) -> list[EncodedExample]:
        """The first data.items training records of data.replay_folder as turns of a chat, which the method does not change.

        Raises:
            ValueError: a record has a sketch or no answer, or is too long (names file and row), or there is no training
                record.
        """
        rows, folder = list[EncodedExample](), self.data.replay_folder
        for number, trace in enumerate(trace for trace in native.read(folder) if trace.split == "train"):
            if number == self.data.items:
                warn_of_left_out_records(folder, number)
                break
            try:
                rows += self.short_enough([self.encode_replayed_record(trace)])
            except ValueError as error:
                raise ValueError(f"data.replay_folder: {native.locate(folder, trace.id)}: {error}") from None
        if not rows:
            raise ValueError(f"data.replay_folder: '{folder}' has no training record that could be replayed.")
        return rows

    def encode_replayed_record(self, trace: Trace) -> EncodedExample:
        """One record. Errors as of :meth:`encode_replayed`, without its place."""
        if trace.sketches():
            raise ValueError(
                "has sketches, but text alone is replayed. Convert the folder: python -m latent_reason data convert native "
                f"{self.data.replay_folder} FOLDER --mode text"
            )
        check_answered(trace)
        row = self.reasoner.processor.encode(trace)
        self.check_length(row, trace)
        return row

    def replay(self, number: int) -> list[EncodedExample]:
        """Random replayed texts and records for a batch of the run, by its number."""
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        chosen = torch.randint(len(self.replayed), (self.data.replay_batch_size,), generator=random)
        return [self.replayed[i] for i in chosen.tolist()]

    def training_batch(self, rows: list[EncodedExample], number: int) -> MixedBatch:
        """A training batch: examples of the task, and those that the recipe replays."""
        return self.collate(rows + (self.replay(number) if self.replayed else []))

    def collate(self, rows: list[EncodedExample]) -> MixedBatch:
        """Examples as one batch. Features that are not cached are computed for this batch only."""
        if self.frozen_vision:
            rows = with_features(rows, self.reasoner, self.cache)
        raw_images = [image for row in rows for image in row.images]
        rows = pack_examples(rows, self.data.packing_length) if self.data.packing_length else rows
        return replace(collate_examples(self.reasoner.processor, rows), raw_images=raw_images)

    def batches(self, rank: int = 0, world: int = 1) -> TrainingBatches:
        """Endless training batches of one process. The process that holds the vision encoder collates them."""
        return TrainingBatches(self, rank, world)

    def train_dataloader(self) -> StepBatches:
        trainer = self.trainer
        module = trainer.lightning_module
        source = self.batches(module.data_parallel_rank, module.data_parallel_size)
        return StepBatches(source, trainer.accumulate_grad_batches, module.loss_weights)

    def digest(self) -> str:
        """Hash of the token ids of all training rows, of streamed data of those that were read for the statistics, and of
        replayed records."""
        found = blake2b(digest_size=16)
        for row in [*self.rows["train"], *(self.replayed if self.data.replay_folder else ())]:
            found.update(np.array(row.ids, dtype=np.int64).tobytes())
        return found.hexdigest()

    @property
    def num_held_out_batches(self) -> int:
        return math.ceil(len(self.rows["val"]) / self.batch_size)

    def held_out_batch(self, number: int) -> HeldOutBatch:
        """A batch of held-out examples. Those after the last are the first ones again, and do not count."""
        start = number % self.num_held_out_batches * self.batch_size
        rows = self.rows["val"][start : start + self.batch_size]
        return HeldOutBatch(self.collate(rows), number, number < self.num_held_out_batches)

    def held_out_batches(self, rank: int = 0, world: int = 1) -> DataLoader:
        """The batches of process ``rank`` of ``world``. All have as many, because a pass through sharded weights waits for
        the other processes."""
        count = math.ceil(self.num_held_out_batches / world)
        return DataLoader(
            range(rank, count * world, world),
            batch_size=None,
            collate_fn=self.held_out_batch,
            generator=torch.Generator(),  # otherwise it takes a number from those of training
        )

    def val_dataloader(self) -> DataLoader:
        module = self.trainer.lightning_module
        return self.held_out_batches(module.data_parallel_rank, module.data_parallel_size)

    def release(self) -> None:
        """Remove what processes of several machines share, when all have ended."""
        release(self.peers)

    def teardown(self, stage: str) -> None:
        if self.cache:
            self.cache.flush()


def reading_data(
    config: DecoderConfig | PretrainConfig, reasoner: LatentReasoner, objective: Objective, folder: Path
) -> TraceData:
    """The encoded data of a run that reads questions about images and draws the images back."""
    peers = Peers.of_launch(folder)
    data = config.data.with_defaults()
    made = TraceData(data, reasoner, objective, "reading", config.seed, frozen_vision=False, peers=peers)
    made.setup()
    return made


class TrainingBatches:
    """Batches of :class:`TraceData` for process ``rank`` of ``world``: of its rows, or of its stream."""

    def __init__(self, data: TraceData, rank: int, world: int):
        self.data, self.rank, self.world = data, rank, world
        self._read = 0  # batches of this process
        self._streamed: StreamedRows | None = None

    def __iter__(self) -> Iterator[MixedBatch]:
        return self.start(None)

    def start(self, place: dict[str, Any] | None) -> Iterator[MixedBatch]:
        """The batches after a place that :meth:`place` gave, also on another number of processes.

        Raises:
            ValueError: another number of processes cannot continue at this place.
        """
        place = place or {"batches": 0, "stream": None}
        if place["batches"] % self.world or (place["stream"] and place["world"] != self.world):
            raise ValueError(
                f"resume: {self.world} processes cannot continue at batch {place['batches']} of the data"
                f"{', which are streamed' if place['stream'] else ''}. Use {place['world']} processes, as before."
            )
        self._read = place["batches"] // self.world
        return self._from_stream(place["stream"]) if self.data.data.streaming else self._from_rows()

    def place(self) -> dict[str, Any]:
        stream = self._streamed.place() if self._streamed else None
        return {"batches": self._read * self.world, "world": self.world, "stream": stream}

    def _from_rows(self) -> Iterator[MixedBatch]:
        data, rows = self.data, self.data.rows["train"]
        window = 1 if data.data.packing_length else 8  # rows of mixed lengths pack best
        lengths = [len(row.ids) for row in rows]
        order = LengthGrouped(lengths, data.batch_size, data.seed, window, self.world)
        for number, chosen in order.batches(self.rank, self._read):
            self._read += 1
            yield data.training_batch([rows[i] for i in chosen], number)

    def _from_stream(self, place: dict[str, Any] | None) -> Iterator[MixedBatch]:
        data = self.data
        stream = Stream(data.data.folder, "train", data.seed, self.rank, self.world, make=data.encode)
        workers = min(data.data.num_workers, len(stream.shards))
        self._streamed = StreamedRows(stream, data.batch_size, workers, place)
        for rows in filter(None, map(data.short_enough, self._streamed)):
            number = self._read * self.world + self.rank
            self._read += 1
            yield data.training_batch(rows, number)
