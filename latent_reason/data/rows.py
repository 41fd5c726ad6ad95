"""The rows of a data file, one by one: each becomes a Trace, or a DataError that says where it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..trace import Trace
from .errors import DataError, Report
from .jsonl import BOM, decode, elements, lines
from .pictures import Pictures
from .record import Load, Warn


@dataclass
class Row:
    """One row as it stands in ``file`` and what a reader needs to make a Trace of it."""

    value: Any
    file: Path
    number: int  # lines of a .jsonl from 1, elements of a .json from 0
    load: Load
    warn: Warn


def rows(file: Path, trace: Callable[[Row], Trace], pictures: Pictures, seen: dict[str, str],
         report: Report) -> Iterator[Trace | DataError]:
    """Every row of a file by ``trace``; ``seen`` (id -> where) finds ids used twice, counts go to ``report``."""
    warned: set[str] = set()

    def warn(kind: str, sentence: str) -> None:
        if kind not in warned:
            warned.add(kind)
            report.warnings.append(f"{file}:{number}: {sentence}.")

    def load(name: str, field: str):
        return pictures.load(name, field, warn)

    first = True
    for number, data in (elements if file.suffix == ".json" else lines)(file):
        if first and data.startswith(BOM):
            data = data[len(BOM):]
            warn("bom", "the file begins with a byte order mark, which is skipped")
        first = False
        if not data.strip() and file.suffix != ".json":
            report.empty_lines += 1
            continue
        report.rows += 1
        value = None
        try:
            value = decode(data)
            made = trace(Row(value, file, number, load, warn))
            claim(made.id, f"{file}:{number}", seen)
            report.traces += 1
            yield made
        except DataError as error:
            id = value.get("id") if isinstance(value, dict) else None
            report.errors.append(error.at(str(file), number, id))
            yield error


def claim(id: str, where: str, seen: dict[str, str]) -> None:
    """Notes that ``id`` is used. Raises DataError (E13) where it was."""
    if id in seen:
        raise DataError("E13", "id", f"id '{id}' already used in {seen[id]}. Ids must be unique.")
    seen[id] = where
