"""Traces to batches: encoded once, pictures seen once where the eye is frozen, grouped by length; or streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice, product
from pathlib import Path

import lightning as L
import torch
from rich.progress import track
from torch.utils.data import DataLoader, Sampler

from latent_reason import methods, tasks
from latent_reason.data import native, texts
from latent_reason.data.packed import manifest, of_split
from latent_reason.data.streaming import Stream
from latent_reason.model.batch import TEXT, MixedBatch, collate
from latent_reason.model.packing import packed
from latent_reason.model.processor import EncodedExample
from latent_reason.tasks import Item
from latent_reason.trace import Image, Sketch, Text, Trace

from .config import DataConfig, RLDataConfig, SFTDataConfig
from .feature_cache import SeenCache, look, see, seen_of
from .progress import console

SAMPLES = 2000  # sketches that give the statistics of all


def plain(text: str, vocabulary, longest: int = 128) -> EncodedExample:
    """A text without turns, each of its words taught but the first."""
    ids = vocabulary.encode_text(text, plain=True)[:longest]
    return EncodedExample(ids=ids, kind=[TEXT] * len(ids), weight=[0.0] + [1.0] * (len(ids) - 1))


def _own_pictures(row: EncodedExample) -> EncodedExample:
    """The row with lists of pictures of its own, so that what is seen for one batch is not kept."""
    return replace(
        row,
        images=list(row.images),
        sketches=list(row.sketches),
        told=None if row.teacher_example is None else _own_pictures(row.teacher_example),
    )


def traces(data: SFTDataConfig, mode: str, split: str, n: int) -> Iterator[Trace]:
    """The traces a recipe asks for: native records of a folder, or items of a task."""
    if data.folder and (data.include_ids or data.swap_image_prob):
        raise ValueError(
            "data.include_ids and data.swap_image_prob are for items of a task, not for a folder. Leave them out."
        )
    if data.folder:
        found = of_split(Path(data.folder), split) if manifest(Path(data.folder)) else data.folder
        yield from islice((t for t in native.read(found) if t.split == split), n if found else 0)
        return
    task, modes = make_task(data, split), data.modes if data.modes and mode != "reading" else [mode]
    indices = kept(data, n) if data.include_ids and split == "train" and mode != "reading" else range(n)
    paired = product(indices, modes) if data.pair_modes else ((i, modes[i % len(modes)]) for i in indices)
    for i, wanted in islice(paired, n):
        if wanted == "reading":
            yield task.reading_trace(i)
            continue
        if data.swap_image_prob and not task.redraws:
            raise ValueError(
                f"data.swap_image_prob: a sketch of {data.task} does not show all that later steps need, so under "
                "another picture they could not be told. Leave the key out."
            )
        trace = task.trace(task[i], wanted)
        chance = task.stream(trace.level, i, "foreign").unit()
        yield foreign(trace, task[i + n * len(task.levels)]) if chance < data.swap_image_prob else trace


def kept(data: SFTDataConfig | RLDataConfig, n: int) -> list[int]:
    """The first n indices of the items a file of eval.item_filter names.

    Raises:
        ValueError: it is no such file, is about other items, or names none.
    """
    try:
        found = json.loads(Path(data.include_ids).read_text(encoding="utf-8"))
        about, indices = {k: found[k] for k in ("task", "version", "levels", "seed", "options")}, found["keep"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"data.include_ids: '{data.include_ids}' is no file of eval.item_filter ({type(error).__name__}). Make one with "
            "python -m eval.item_filter CHECKPOINT --out FILE."
        ) from None
    here = {
        "task": data.task,
        "version": make_task(data, "train").version,
        "levels": data.levels,
        "seed": data.seed,
        "options": json.loads(json.dumps(data.options)),
    }
    for name, value in about.items():
        if value != (own := here[name]):
            raise ValueError(
                f"data.include_ids: '{data.include_ids}' is about {name} {value}, the recipe is about {own}."
            )
    if not indices:
        raise ValueError(f"data.include_ids: '{data.include_ids}' names no items. Look at its counts.")
    return indices[:n]


def foreign(trace: Trace, other: Item) -> Trace:
    """The trace under the picture of another item of its level. What can be told from neither picture nor sketch, up to
    and with the first sketch, is not taught."""
    *asked, last = trace.messages
    first = next((i for i, part in enumerate(last.content) if isinstance(part, Sketch)), None)
    if first is None:
        return trace
    shown = iter(other.images)
    asked = [
        replace(m, content=tuple(Image(next(shown)) if isinstance(p, Image) else p for p in m.content)) for m in asked
    ]
    parts = tuple(replace(part, loss=0.0) if i <= first else part for i, part in enumerate(last.content))
    return replace(trace, id=f"{trace.id}-foreign", messages=(*asked, replace(last, content=parts)))


def make_task(data: DataConfig, split: str):
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in data.options.items()}
    return tasks.make(data.task, split=split, seed=data.seed, level=tuple(data.levels), **options)


def corpus(data: SFTDataConfig, n: int = 300) -> list[str]:
    """Texts in every mode, for the tiny tokenizer."""
    modes = ("reading", "mixed", "text", "direct") if not data.folder else ("mixed",)
    words = [
        p.text
        for mode in modes
        for t in traces(data, mode, "train", n)
        for m in t.messages
        for p in m.content
        if isinstance(p, Text)
    ]
    return words + ["user\n", "assistant\n", "system\n"] * len(words)


class LengthGrouped(Sampler[list[int]]):
    """Batches of rows of similar length. The order is a pure function of (seed, epoch); only the place is state.

    Of ``world`` processes each takes every ``world``-th batch, from its ``rank`` on: none sees a row of another's.
    """

    def __init__(self, lengths: list[int], batch_size: int, seed: int, window: int = 8, rank: int = 0, world: int = 1):
        self.lengths, self.seed, self.window, self.rank, self.world = lengths, seed, window, rank, world
        self.batch_size = max(1, min(batch_size, len(lengths) // world))
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths) // self.batch_size // self.world

    def __iter__(self) -> Iterator[list[int]]:
        return islice(self.all_batches(), self.rank, len(self) * self.world, self.world)

    def all_batches(self) -> Iterator[list[int]]:
        random = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        self.epoch += 1
        order = torch.randperm(len(self.lengths), generator=random).tolist()
        order = order[: len(order) // self.batch_size * self.batch_size]
        for start in range(0, len(order), self.batch_size * self.window):
            near = sorted(order[start : start + self.batch_size * self.window], key=lambda i: self.lengths[i])
            batches = [near[i : i + self.batch_size] for i in range(0, len(near), self.batch_size)]
            yield from (batches[i] for i in torch.randperm(len(batches), generator=random).tolist())


class RepeatedBatches(Sampler[list[int]]):
    """The batches of a sampler, epoch after epoch: an accumulated optimizer step may cross the end of an epoch."""

    def __init__(self, batches: Sampler[list[int]]):
        self.batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        while True:
            yield from self.batches


class TraceData(L.LightningDataModule):
    """Encoded rows of a recipe. ``mode`` is the form of a trace a method trains on, or ``reading``. What is streamed is
    read while it trains; the rows kept here then give the statistics of its sketches."""

    def __init__(self, data: SFTDataConfig, reasoner, mode: str, seed: int, frozen_eye: bool):
        super().__init__()
        self.data, self.reasoner, self.mode, self.seed, self.frozen_eye = data, reasoner, mode, seed, frozen_eye
        self.rows: dict[str, list[EncodedExample]] = {}
        self.room = data.feature_cache_gb * 2**30  # bytes left for what a frozen eye saw
        if data.cache and not frozen_eye:
            raise ValueError(
                "data.cache: what an eye sees is kept only where it does not learn, and this run trains "
                "it. Leave the key out."
            )
        say = partial(console.print, style="yellow")
        self.cache = SeenCache(data.cache, data.cache_gb * 2**30, say, data.cache_dtype) if data.cache else None
        self.texts: list[EncodedExample] = []
        self.random = torch.Generator().manual_seed(seed)

    def setup(self, stage: str | None = None) -> None:
        if self.rows:
            return
        if self.data.packing_length and not self.reasoner.packs:
            raise ValueError(
                f"data.packing_length: {self.reasoner.method.name!r} reads rows as a whole, so traces cannot "
                "share one. Leave the key out."
            )
        items = min(self.data.items, SAMPLES) if self.data.streaming else self.data.items
        for split, n in (("train", items), ("val", self.data.val_items)):
            rows: list[EncodedExample] = []
            waiting: list[EncodedExample] = []  # a few at a time: all pictures of a set would not fit into memory
            for trace in track(
                traces(self.data, self.mode, split, n),
                total=None if self.data.folder else n,
                description=f"{split} items of {self.data.folder or self.data.task}",
                console=console,
            ):
                waiting.append(self.encode(trace))
                if len(waiting) == 64:
                    rows, waiting = rows + self.seen(waiting), []
            self.rows[split] = rows + self.seen(waiting)
        if self.data.replay_texts:
            self.texts = [plain(text, self.reasoner.vocabulary) for text in texts.lines(self.data.replay_texts)]
        if not self.rows["train"]:
            raise ValueError(f"no training items. '{self.data.folder}' holds none whose split is train.")
        if self.cache:
            self.cache.flush()
            console.print(
                f"Of {self.cache.hits + self.cache.misses:,} pictures, {self.cache.hits:,} were seen before "
                f"(data.cache '{self.data.cache}')."
            )

    def encode(self, trace: Trace) -> EncodedExample:
        """Raises ValueError for a sketch where the method draws none."""
        if trace.sketches() and not self.reasoner.can_sketch:
            raise ValueError(
                f"trace '{trace.id}' holds a sketch, but method {self.reasoner.method.name!r} draws "
                "none. Give traces without sketches."
            )
        return self.reasoner.processor.encode(trace)

    def seen(self, rows: list[EncodedExample]) -> list[EncodedExample]:
        """Rows whose pictures a frozen eye has looked at, as long as there is room to keep what it saw."""
        if self.frozen_eye and self.room > 0:
            see(rows, self.reasoner, cache=self.cache)
            self.room -= sum(p.tokens.nbytes for row in rows for p in seen_of(row))
            if self.room <= 0:
                console.print(
                    f"What the frozen eye saw fills {self.data.feature_cache_gb:g} GB (data.feature_cache_gb): the other "
                    "pictures are looked at whenever their turn comes.",
                    style="yellow",
                )
        return rows

    def sketch_features(self, most: int = SAMPLES) -> list[tuple[torch.Tensor, tuple[int, int]]]:
        """What the target makes of training sketches, with their grids, for the standardiser."""
        found, backbone, target = [], self.reasoner.backbone, self.reasoner.target
        rows = [row for row in self.rows["train"] if row.spans]
        for start in range(0, len(rows), 32):
            if len(found) >= most:
                break
            batch = self.collate(rows[start : start + 32]).to(backbone.model.device)
            found += target.statistics_samples(batch)
        return found

    def rehearsed(self) -> list[EncodedExample]:
        """The next few plain texts, in an order of their own."""
        chosen = torch.randint(len(self.texts), (self.data.replay_batch_size,), generator=self.random)
        return [self.texts[i] for i in chosen.tolist()]

    def taught(self, rows: list[EncodedExample]) -> MixedBatch:
        """A batch of training: rows of the task, and plain texts beside them where the recipe rehearses some."""
        return self.collate(rows + (self.rehearsed() if self.texts else []))

    def collate(self, rows: list[EncodedExample]) -> MixedBatch:
        rows = packed(rows, self.data.packing_length) if self.data.packing_length else rows
        if self.frozen_eye:
            rows = [_own_pictures(row) for row in rows]
            see(rows, self.reasoner, cache=self.cache)
            return collate(rows, self.reasoner.vocabulary.pad, look)
        batch = collate(rows, self.reasoner.vocabulary.pad, self.reasoner.backbone.preprocess_images, self.reasoner.look)
        batch.raw_images = [p for r in rows for p in r.images]
        return batch

    def train_dataloader(self) -> DataLoader:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if self.data.streaming:
            stream = Stream(self.data.folder, "train", self.seed, rank, world, make=self.encode)
            return DataLoader(
                stream,
                self.data.batch_size,
                num_workers=min(self.data.num_workers, len(stream.shards)),
                collate_fn=list,
            )
        window = 1 if self.data.packing_length else 8  # rows of all lengths fill what they share best
        sampler = LengthGrouped(
            [len(r.ids) for r in self.rows["train"]], self.data.batch_size, self.seed, window, rank, world
        )
        return DataLoader(self.rows["train"], batch_sampler=RepeatedBatches(sampler), collate_fn=self.taught)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.rows["val"], batch_size=self.data.batch_size, collate_fn=self.collate)

    def on_before_batch_transfer(self, batch: MixedBatch | list[EncodedExample], dataloader_idx: int) -> MixedBatch:
        """Rows that workers read become a batch in the process that holds the eye."""
        return self.taught(batch) if isinstance(batch, list) else batch

    def teardown(self, stage: str) -> None:
        if self.cache:
            self.cache.flush()


def mode_of(method: str) -> str:
    return methods.load(method).MODE
