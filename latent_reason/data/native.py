"""Read, check and write native records: JSONL of schema ``latent_reason/1`` with image files in the same folder.

Packed records, tar or parquet shards (packed.py), are read as well. ``read`` yields Traces and stops at the first
error, ``check`` returns a Report of all errors, ``write`` creates a folder that ``read`` accepts. Errors are DataError,
``<file>:<row>: <field>: <what is wrong>. <what to do>``.
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
from .checks import Overlap, check_graded
from .errors import DataError, Report
from .jsonl import BOM, decode, to_line
from .pictures import ImageFolder, Limits, PictureStore
from .places import ImageRoots, Places, list_roots
from .record import SCHEMA, parse
from .rows import Raw, Row, register_id, rows, text_rows

__all__ = ["DataError", "Limits", "Report", "check", "examine", "locate", "read", "write"]
Paths = str | Path | Iterable[str | Path]


def read(
    path: Paths, image_root: ImageRoots = None, limit: int | None = None, limits: Limits | None = None
) -> Iterator[Trace]:
    """Yield the traces of a file, of all ``*.jsonl`` files and shards of a folder, or of several of these.

    Image paths are relative to the folder of each file, or to a folder of ``image_root``, where they are looked up
    first (places.py). Images are decoded to RGB. An image that several records use is decoded once and shared, so treat
    images as read-only. At most ``limit`` traces are read.

    Raises:
        DataError: at the first error; E25 if there is no trace.
        FileNotFoundError: ``path`` does not exist.
    """
    report, path = Report(), list_files(path)

    def traces() -> Iterator[Trace]:
        num_shown = 0
        for result in examine(path, image_root, limits, report):
            for sentence in report.warnings[num_shown:]:
                warnings.warn(sentence, stacklevel=2)
            num_shown = len(report.warnings)
            if isinstance(result, DataError):
                raise result
            yield result
        if not report.traces:
            raise report.nothing_usable()

    return islice(traces(), limit)


def locate(path: Paths, id: str) -> str:
    """``file:row`` of the record with an id. Images are not read. Raises KeyError if there is none."""
    for file in list_files(path):
        for raw in _raw_rows(file, [], None):
            if isinstance(raw.data, dict) or (isinstance(raw.data, bytes) and raw.data.strip()):
                value = raw.data if isinstance(raw.data, dict) else decode(raw.data.removeprefix(BOM))
                if isinstance(value, dict) and value.get("id") == id:
                    return f"{file}:{raw.number}"
    raise KeyError(id)


def check(
    path: Paths,
    image_root: ImageRoots = None,
    limits: Limits | None = None,
    fits: Callable[[Trace], None] | None = None,
) -> Report:
    """Read all records and images and report every error.

    Reported are rows that ``read`` rejects, questions that their checker cannot grade, rows for which ``fits`` raises
    DataError, and items of other splits that equal a training item (E23).
    """
    report, overlap = Report(), Overlap()

    def check_trace(trace: Trace) -> None:
        check_graded(trace)
        if fits is not None:
            fits(trace)

    for result in examine(path, image_root, limits, report, check_trace):
        if isinstance(result, Trace):
            overlap.add(result)
    report.errors.extend(overlap.errors())
    if not report.traces:
        report.errors.append(report.nothing_usable())
    return report


def examine(
    path: Paths,
    image_root: ImageRoots = None,
    limits: Limits | None = None,
    report: Report | None = None,
    fits: Callable[[Trace], None] | None = None,
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace or a DataError. Counts go to ``report``; ``fits`` may reject more rows."""
    report = Report() if report is None else report

    def parse_checked(row: Row) -> Trace:
        trace = trace_of(row)
        if fits is not None:
            fits(trace)
        return trace

    ids: dict[str, str] = {}  # id -> file:row
    stores: dict[Path, ImageFolder] = {}
    named = list_roots(image_root)
    for file in list_files(path):
        report.count(files=1)
        if file.parent not in stores:
            stores[file.parent] = ImageFolder(file.parent, limits, named)
        try:
            raw_rows = _raw_rows(file, named, limits)
        except DataError as error:
            report.errors.append(error)
            yield error
            continue
        yield from rows(file, raw_rows, parse_checked, stores[file.parent], ids, report)


def find_fault(file: Path, named: Iterable[Path] = ()) -> DataError | None:
    """Why a file of records cannot be used: a link that leads elsewhere, or a shard that does not match the manifest of
    its folder; None if it can. A link may lead to the ``named`` folders."""
    if file.suffix in packed.SHARDS:
        return packed.find_damage(file, packed.manifest(file.parent), named)
    if not Places(file.parent, named).contains(file):
        return DataError("E08", "", packed.LINKED, str(file))
    return None if file.is_file() else DataError("E07", "", packed.NOT_PLAIN, str(file))


def _raw_rows(file: Path, named: list[Path], limits: Limits | None) -> Iterator[Raw]:
    """The raw rows of a file. Raises DataError if the file cannot be used."""
    if error := find_fault(file, named):
        raise error
    if file.suffix not in packed.SHARDS:
        return text_rows(file)
    shard = packed.open_shard(file, limits)
    return (shard.item(number) for number in shard.order())


def write(traces: Iterable[Trace], folder: str | Path, name: str = "traces.jsonl") -> Path:
    """Write ``traces`` atomically to ``name`` and ``img/`` in a new ``folder``; returns the path of the JSONL file.

    Equal images are stored once: as the plain file that they were read from, else as PNG, with a palette if they have
    at most 256 colors.

    Raises:
        FileExistsError: the folder is not empty.
        DataError: ``read`` would reject a trace.
        OSError: the disk is full (ENOSPC).
    """
    if os.path.basename(name) != name or not name.endswith(".jsonl"):
        raise ValueError(f"'{name}' is not a file name that ends in .jsonl. Use a name such as traces.jsonl.")
    target = Path(folder) / name
    ids: dict[str, str] = {}
    with atomic_folder(folder) as unfinished:
        store = PictureStore(unfinished)
        with open(unfinished / name, "x", encoding="utf-8", newline="\n") as file:
            for row, trace in enumerate(traces, 1):
                try:
                    file.write(encode(trace, lambda part: store.add(part.image)) + "\n")
                    register_id(trace.id, f"{target}:{row}", ids)
                except DataError as error:
                    raise error.at(str(target), row, trace.id) from None
        if not ids:
            raise DataError("E25", "", "there are no traces to write. Pass at least one.", str(target))
    return target


def list_files(path: Paths) -> list[Path]:
    """The record files and shards of files and folders. Raises FileNotFoundError."""
    files = []
    for entry in [path] if isinstance(path, str | Path) else path:
        entry = Path(entry)
        if not entry.exists():
            raise FileNotFoundError(f"There is no file or folder '{entry}'. Correct the path.")
        files += _files_of(entry) if entry.is_dir() else [entry]
    return files


def _files_of(folder: Path) -> list[Path]:
    """The record files and shards of a folder, including shards that the manifest lists but that are missing."""
    try:
        listed = packed.manifest(folder)
    except DataError:  # raised again when a shard is read
        listed = {}
    present = {file.name for file in folder.iterdir() if file.suffix in (".jsonl", *packed.SHARDS)}
    return [folder / name for name in sorted(present | listed.keys())]


def trace_of(row: Row) -> Trace:
    """Parse a native record to a Trace."""
    return parse(row.value, row.load, row.warn)


def encode(trace: Trace, add: Callable[[Image | Sketch], str]) -> str:
    """The record of ``trace`` as one JSON line. ``add`` stores the image of a part and returns its path.

    Raises DataError if ``read`` would reject the record.
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
        raise DataError("E05", "messages", "a sketch without an image. Give every sketch of a record an image.")
    return {"type": "sketch", "image": add(part)} | options_of(part)


def options_of(sketch: Sketch) -> dict:
    """The fields of a sketch that differ from their defaults, without its image."""
    return {
        field.name: value
        for field in fields(sketch)
        if field.name != "image" and (value := getattr(sketch, field.name)) != field.default
    }


_BLANK = PILImage.new("RGB", (1, 1))
