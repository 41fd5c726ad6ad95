"""Reader, checker and writer of our own format: JSONL of ``latent_reason/1`` records with pictures beside it, and
reader of its packed form, shards of tar or parquet (packed.py).

``read`` gives Traces and stops at the first problem, ``check`` gives a Report of all problems, ``write`` makes a folder
that ``read`` accepts. Problems are DataError, ``<file>:<row>: <field>: <what is wrong>. <what to do>``.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path

from PIL import Image as PILImage

from ..files import atomic_folder
from ..trace import Image, Message, Part, Sketch, Text, Trace
from . import packed
from .checks import Overlap
from .errors import DataError, Report
from .jsonl import to_line
from .pictures import ImageFolder, Limits, PictureStore
from .record import SCHEMA, parse
from .rows import Raw, Row, claim, rows, text_rows

__all__ = ["DataError", "Limits", "Report", "check", "examine", "read", "write"]
Paths = str | Path | Iterable[str | Path]


def read(
    path: Paths, image_root: str | Path | None = None, limit: int | None = None, limits: Limits | None = None
) -> Iterator[Trace]:
    """The traces of a file, of all ``*.jsonl`` and shards in a folder, or of several of those, one after the other.

    Images are decoded to RGB as they come and looked for in ``image_root`` (default: the folder of each file); those
    used again are decoded once and shared, so treat them as read-only. At most ``limit`` traces are read.
    Raises DataError at the first problem, E25 where there is no trace at all; FileNotFoundError for ``path``.
    """
    report, path = Report(), _files(path)

    def traces() -> Iterator[Trace]:
        said = 0
        for found in examine(path, image_root, limits, report):
            for sentence in report.warnings[said:]:
                warnings.warn(sentence, stacklevel=2)
            said = len(report.warnings)
            if isinstance(found, DataError):
                raise found
            yield found
        if not report.traces:
            raise report.nothing_usable()

    return islice(traces(), limit)


def check(
    path: Paths,
    image_root: str | Path | None = None,
    limits: Limits | None = None,
    fits: Callable[[Trace], None] | None = None,
) -> Report:
    """Reads everything, pictures too, and reports every row that ``read`` would stop at, what ``fits`` refuses (by a
    DataError), and items of other splits that show what train shows (E23)."""
    report, overlap = Report(), Overlap()
    for found in examine(path, image_root, limits, report, fits):
        if isinstance(found, Trace):
            overlap.add(found)
    report.errors.extend(overlap.errors())
    if not report.traces:
        report.errors.append(report.nothing_usable())
    return report


def examine(
    path: Paths,
    image_root: str | Path | None = None,
    limits: Limits | None = None,
    report: Report | None = None,
    fits: Callable[[Trace], None] | None = None,
) -> Iterator[Trace | DataError]:
    """Every row as a Trace or as what is wrong with it; counts go to ``report``. ``fits`` may refuse more rows."""
    report = Report() if report is None else report

    def made(row: Row) -> Trace:
        trace = trace_of(row)
        if fits is not None:
            fits(trace)
        return trace

    seen: dict[str, str] = {}  # id -> where
    stores: dict[str, ImageFolder] = {}
    for file in _files(path):
        report.count(files=1)
        root = str(image_root if image_root is not None else file.parent)
        pictures = stores.setdefault(root, ImageFolder(root, limits))
        try:
            found = _shard(file, limits) if file.suffix in packed.SHARDS else text_rows(file)
        except DataError as wrong:
            report.errors.append(wrong)
            yield wrong
            continue
        yield from rows(file, found, made, pictures, seen, report)


def _shard(file: Path, limits: Limits | None) -> Iterator[Raw]:
    """The items of a shard, as they stand. Raises DataError where it is not as its folder lists it."""
    if wrong := packed.damage(file, packed.manifest(file.parent)):
        raise wrong
    shard = packed.open_shard(file, limits)
    return (shard.item(number) for number in shard.order())


def write(traces: Iterable[Trace], folder: str | Path, name: str = "traces.jsonl") -> Path:
    """Writes ``traces`` to a new ``folder`` as ``name`` and ``img/``, whole or not at all; returns the JSONL's path.

    Equal pictures are stored once, as PNG, with a palette where they have at most 256 colours. Raises
    FileExistsError where the folder is not empty, DataError for a trace that ``read`` would refuse, OSError (ENOSPC)
    on a full disk.
    """
    if os.path.basename(name) != name or not name.endswith(".jsonl"):
        raise ValueError(f"'{name}' is no file name that ends in .jsonl.")
    target, seen = Path(folder) / name, {}
    with atomic_folder(folder) as unfinished:
        store = PictureStore(unfinished)
        with open(unfinished / name, "x", encoding="utf-8", newline="\n") as file:
            for row, trace in enumerate(traces, 1):
                try:
                    file.write(encode(trace, lambda part: store.add(part.image)) + "\n")
                    claim(trace.id, f"{target}:{row}", seen)
                except DataError as error:
                    raise error.at(str(target), row, trace.id) from None
        if not seen:
            raise DataError("E25", "", "there are no traces to write.", str(target))
    return target


def _files(path: Paths) -> list[Path]:
    found = []
    for one in [path] if isinstance(path, str | Path) else path:
        one = Path(one)
        if not one.exists():
            raise FileNotFoundError(f"There is no file or folder '{one}'. Correct the path.")
        found += _files_of(one) if one.is_dir() else [one]
    return found


def _files_of(folder: Path) -> list[Path]:
    """What holds records in a folder, and shards that it lists and has lost."""
    try:
        listed = packed.manifest(folder)
    except DataError:  # said where each shard is read
        listed = {}
    there = {file.name for file in folder.iterdir() if file.suffix in (".jsonl", *packed.SHARDS)}
    return [folder / name for name in sorted(there | listed.keys())]


def trace_of(row: Row) -> Trace:
    """The Trace of a native record."""
    return parse(row.value, row.load, row.warn)


def encode(trace: Trace, add: Callable[[Image | Sketch], str]) -> str:
    """The record of ``trace`` as a line; ``add`` stores the picture of a part and gives its path.

    Raises DataError for what ``read`` would refuse.
    """
    record = {
        "schema": SCHEMA,
        "id": trace.id,
        "task": trace.task,
        "split": trace.split,
        "level": trace.level,
        "mode": trace.mode,
        "messages": [_turn(message, add) for message in trace.messages],
        "answer": trace.answer,
        "checker": trace.checker,
        "meta": trace.meta,
    }
    line = to_line(record)
    parse(json.loads(line), lambda name, field: _BLANK, lambda kind, sentence: None)
    return line


def _turn(message: Message, add: Callable[[Image | Sketch], str]) -> dict:
    return {"role": message.role, "content": [_part(part, add) for part in message.content]}


def _part(part: Part, add: Callable[[Image | Sketch], str]) -> dict:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text} | ({} if part.loss is None else {"loss": part.loss})
    if isinstance(part, Image):
        return {"type": "image", "image": add(part)}
    if part.image is None:
        raise DataError("E05", "messages", "a thought without a picture. Records hold sketches with pictures alone.")
    return {"type": "sketch", "image": add(part)} | options_of(part)


def options_of(sketch: Sketch) -> dict:
    """What a sketch holds besides its picture, without what is as usual."""
    return {
        field.name: value
        for field in fields(sketch)
        if field.name != "image" and (value := getattr(sketch, field.name)) != field.default
    }


_BLANK = PILImage.new("RGB", (1, 1))
