"""Reader, checker and writer of our own format: JSONL of ``latent_reason/1`` records with pictures beside it.

``read`` gives Traces and stops at the first problem, ``check`` gives a Report of all problems, ``write`` makes a folder
that ``read`` accepts. Problems are DataError, ``<file>:<row>: <field>: <what is wrong>. <what to do>``.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from PIL import Image as PILImage

from ..files import atomic_folder
from ..trace import Image, Message, Part, Text, Trace
from .errors import DataError, Report
from .jsonl import decode, lines
from .pictures import Limits, Pictures, PictureStore
from .record import SCHEMA, parse

__all__ = ["DataError", "Limits", "Report", "check", "examine", "read", "write"]
Paths = str | Path | Iterable[str | Path]


def read(path: Paths, image_root: str | Path | None = None, limit: int | None = None,
         limits: Limits | None = None) -> Iterator[Trace]:
    """The traces of a file, of all ``*.jsonl`` in a folder, or of several of those, one after the other.

    Pictures are decoded to RGB as they come and looked for in ``image_root`` (default: the folder of each file); those
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
            raise _nothing_usable(report)

    return islice(traces(), limit)


def check(path: Paths, image_root: str | Path | None = None, limits: Limits | None = None) -> Report:
    """Reads everything, pictures too, and reports every row that ``read`` would stop at."""
    report = Report()
    for _ in examine(path, image_root, limits, report):
        pass
    if not report.traces:
        report.errors.append(_nothing_usable(report))
    return report


def examine(path: Paths, image_root: str | Path | None = None, limits: Limits | None = None,
            report: Report | None = None) -> Iterator[Trace | DataError]:
    """Every row as a Trace or as what is wrong with it; counts go to ``report``."""
    report = Report() if report is None else report
    seen: dict[str, str] = {}  # id -> where
    stores: dict[str, Pictures] = {}
    for file in _files(path):
        report.files += 1
        root = str(image_root if image_root is not None else file.parent)
        pictures = stores.setdefault(root, Pictures(root, limits))
        yield from _rows(file, pictures, seen, report)


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
                    file.write(_line(trace, store) + "\n")
                    _claim(trace.id, f"{target}:{row}", seen)
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
        found += sorted(one.glob("*.jsonl")) if one.is_dir() else [one]
    return found


def _nothing_usable(report: Report) -> DataError:
    if not report.files:
        return DataError("E25", "", "no .jsonl file there. Name the folder that holds one.")
    first = f" First error: {report.errors[0]}" if report.errors else " They hold no rows."
    return DataError("E25", "", f"no usable rows in {report.files} file{'s' * (report.files != 1)}.{first}")


def _rows(file: Path, pictures: Pictures, seen: dict[str, str], report: Report) -> Iterator[Trace | DataError]:
    warned: set[str] = set()

    def warn(kind: str, sentence: str) -> None:
        if kind not in warned:
            warned.add(kind)
            report.warnings.append(f"{file}:{row}: {sentence}.")

    def load(name: str, field: str) -> PILImage.Image:
        return pictures.load(name, field, warn)

    for row, line in lines(file):
        if row == 1 and line.startswith(b"\xef\xbb\xbf"):
            line = line[3:]
            warn("bom", "the file begins with a byte order mark, which is skipped")
        if not line.strip():
            report.empty_lines += 1
            continue
        report.rows += 1
        value = None
        try:
            value = decode(line)
            trace = parse(value, load, warn)
            _claim(trace.id, f"{file}:{row}", seen)
            report.traces += 1
            yield trace
        except DataError as error:
            report.errors.append(error.at(str(file), row, value.get("id") if isinstance(value, dict) else None))
            yield error


def _claim(id: str, where: str, seen: dict[str, str]) -> None:
    if id in seen:
        raise DataError("E13", "id", f"id '{id}' already used in {seen[id]}. Ids must be unique.")
    seen[id] = where


def _line(trace: Trace, store: PictureStore) -> str:
    """The record of ``trace`` as a line; what ``read`` would refuse is refused here."""
    record = {
        "schema": SCHEMA, "id": trace.id, "task": trace.task, "split": trace.split, "level": trace.level,
        "mode": trace.mode, "messages": [_turn(message, store) for message in trace.messages], "answer": trace.answer,
        "checker": trace.checker, "meta": trace.meta,
    }
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        line.encode()
    except (TypeError, ValueError) as error:
        what = f"cannot be written as JSON ({error}). Keep to text, numbers, lists and objects."
        raise DataError("E05", "record", what) from None
    parse(json.loads(line), lambda name, field: _BLANK, lambda kind, sentence: None)
    return line


def _turn(message: Message, store: PictureStore) -> dict:
    return {"role": message.role, "content": [_part(part, store) for part in message.content]}


def _part(part: Part, store: PictureStore) -> dict:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text} | ({} if part.loss is None else {"loss": part.loss})
    if isinstance(part, Image):
        return {"type": "image", "image": store.add(part.image)}
    options = {"k": part.k, "loss": part.loss, "state": part.state, "redundant": part.redundant, "box": part.box}
    plain = {"k": None, "loss": 1.0, "state": None, "redundant": False, "box": None}
    return {"type": "sketch", "image": store.add(part.image)} | {
        key: value for key, value in options.items() if value != plain[key]}


_BLANK = PILImage.new("RGB", (1, 1))
