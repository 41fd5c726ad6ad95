"""The traces of a recipe: items of a task in the forms that it names, or records of a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, product
from pathlib import Path

from eval.baselines import make_baseline
from latent_reason import methods, tasks
from latent_reason.data import native
from latent_reason.data.packed import manifest, of_split
from latent_reason.json_files import read_json
from latent_reason.tasks import Item
from latent_reason.trace import Image, Sketch, Text, Trace

from .config import DataConfig, RLDataConfig, SFTDataConfig
from .progress import console


def traces(data: SFTDataConfig, mode: str, split: str, n: int, rank: int = 0, world: int = 1) -> Iterator[Trace]:
    """The first n traces of a recipe: native records of a folder, or items of a task. Of these, process ``rank`` of
    ``world`` gets the traces ``rank``, ``rank + world``, ``rank + 2 * world``, ..."""
    if data.folder and (data.include_ids or data.swap_image_prob):
        raise ValueError(
            "data.include_ids and data.swap_image_prob need items of a task, but data.folder is set. Remove them."
        )
    if data.folder:
        shards = of_split(Path(data.folder), split) if manifest(Path(data.folder)) else data.folder
        yield from islice((t for t in native.read(shards) if t.split == split), rank, n if shards else 0, world)
        return
    task, modes = make_task(data, split), data.modes if data.modes and mode != "reading" else [mode]
    indices = kept(data, n) if data.include_ids and split == "train" and mode != "reading" else range(n)
    paired = product(indices, modes) if data.pair_modes else ((i, modes[i % len(modes)]) for i in indices)
    for i, item_mode in islice(paired, rank, n, world):
        if item_mode == "reading":
            yield task.reading_trace(i)
            continue
        if data.swap_image_prob and not task.redraws:
            raise ValueError(
                f"data.swap_image_prob: a sketch of {data.task} does not show everything that later steps need, so their "
                "text does not follow from it under another image. Remove data.swap_image_prob."
            )
        if data.baseline:
            yield make_baseline(data.baseline).demonstrate(task, task[i])
            continue
        trace = task.trace(task[i], item_mode)
        chance = task.stream(trace.level, i, "foreign").unit()
        yield foreign(trace, task[i + n * len(task.levels)]) if chance < data.swap_image_prob else trace


def kept(data: SFTDataConfig | RLDataConfig, n: int) -> list[int]:
    """The first n item indices of a file of eval.item_filter (``data.include_ids``).

    Raises:
        ValueError: not such a file, a file for other items, or a file without items.
    """
    names = ("task", "version", "levels", "seed", "options")
    try:
        content = read_json(data.include_ids, "a file of eval.item_filter", (*names, "keep"))
    except (OSError, ValueError) as error:
        raise ValueError(f"data.include_ids: {error}") from None
    settings, indices = {name: content[name] for name in names}, content["keep"]
    if not isinstance(indices, list) or not all(type(index) is int and index >= 0 for index in indices):
        raise ValueError(f"data.include_ids: '{data.include_ids}' has no list of item numbers in keep. Write it again.")
    expected = {
        "task": data.task,
        "version": make_task(data, "train").version,
        "levels": data.levels,
        "seed": data.seed,
        "options": json.loads(json.dumps(data.options)),
    }
    for name, value in settings.items():
        if value != expected[name]:
            raise ValueError(
                f"data.include_ids: '{data.include_ids}' was made for {name} {value}, but the recipe has "
                f"{expected[name]}. Use a file made for the same items."
            )
    if not indices:
        raise ValueError(f"data.include_ids: '{data.include_ids}' names no items. Check its counts.")
    return indices[:n]


def foreign(trace: Trace, other: Item) -> Trace:
    """The trace with the image of another item of its level. Everything up to and including the first sketch, which
    follows from neither image nor sketch, has no loss."""
    *prompt, last = trace.messages
    first = next((i for i, part in enumerate(last.content) if isinstance(part, Sketch)), None)
    if first is None:
        return trace
    images = iter(other.images)
    prompt = [
        replace(m, content=tuple(Image(next(images)) if isinstance(p, Image) else p for p in m.content)) for m in prompt
    ]
    parts = tuple(replace(part, loss=0.0) if i <= first else part for i, part in enumerate(last.content))
    return replace(trace, id=f"{trace.id}-foreign", messages=(*prompt, replace(last, content=parts)))


def make_task(data: DataConfig, split: str):
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in data.options.items()}
    return tasks.make(data.task, split=split, seed=data.seed, level=tuple(data.levels), **options)


def corpus(data: SFTDataConfig, n: int = 300) -> list[str]:
    """Texts of all modes, to train the tiny tokenizer."""
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


def warn_of_left_out_records(folder: str, n: int) -> None:
    console.print(
        f"Warning: '{folder}' has more than {n:,} training records. The others are left out. Set a larger data.items to "
        "use them.",
        style="yellow",
    )


def mode_of(method: str) -> str:
    """The form of a trace that a method trains on."""
    return methods.load(method).MODE
