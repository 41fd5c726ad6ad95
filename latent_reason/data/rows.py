"""The rows of a data file, one by one: each becomes a Trace, or a DataError that says where it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..trace import Trace
from .errors import DataError, Report
from .jsonl import BOM, decode, elements, lines
from .pictures import ImageFolder
from .pictures import decode as decode_picture
from .record import Load, Warn


class Raw(NamedTuple):
    """A row as a file holds it, before anything is made of it."""

    number: int  # lines of a .jsonl from 1; elements of a .json, items of a .tar and rows of a .parquet from 0
    data: bytes | dict | DataError  # JSON, its value, or why there is none
    picture: Callable[[str], bytes | None] | None = None  # the file of a picture that came with the row, by name
    sealed: str | None = None  # what stands before those names in a shard; None: pictures may lie beside the file too


@dataclass
class Row:
    """One row as it stands in ``file`` and what a reader needs to make a Trace of it."""

    value: Any
    file: Path
    number: int
    load: Load
    warn: Warn


def text_rows(file: Path) -> Iterator[Raw]:
    """The lines of a .jsonl file, or the elements of a .json file."""
    return (Raw(number, data) for number, data in (elements if file.suffix == ".json" else lines)(file))


def row_of(raw: Raw, file: Path, pictures: ImageFolder, warn: Warn) -> Row:
    """What a reader makes a Trace of. Raises DataError where ``raw`` cannot be read."""
    if isinstance(raw.data, DataError):
        raise raw.data

    def load(name: str, field: str):
        data = None if raw.picture is None else raw.picture(name)
        if data is not None:
            return decode_picture(data, name, field, warn, pictures.limits)
        if raw.sealed is not None:
            raise DataError(
                "E21",
                field,
                f"'{raw.sealed}{name[:80]}' is named in the record and is not in the shard. Pack the set again.",
            )
        return pictures.load(name, field, warn)

    return Row(raw.data if isinstance(raw.data, dict) else decode(raw.data), file, raw.number, load, warn)


def rows(
    file: Path,
    found: Iterable[Raw],
    trace: Callable[[Row], Trace],
    pictures: ImageFolder,
    seen: dict[str, str],
    report: Report,
) -> Iterator[Trace | DataError]:
    """Every row ``found`` in a file by ``trace``; ``seen`` (id -> where) finds ids used twice, counts go to
    ``report``."""
    warned: set[str] = set()

    def warn(kind: str, sentence: str) -> None:
        if kind not in warned:
            warned.add(kind)
            report.warnings.append(f"{file}:{number}: {sentence}.")

    first = True
    for raw in found:
        number, data = raw.number, raw.data
        if first and isinstance(data, bytes) and data.startswith(BOM):
            raw = raw._replace(data=data[len(BOM) :])
            warn("bom", "the file begins with a byte order mark, which is skipped")
        first = False
        if file.suffix == ".jsonl" and not raw.data.strip():
            report.count(empty_lines=1)
            continue
        report.count(rows=1)
        row = None
        try:
            row = row_of(raw, file, pictures, warn)
            made = trace(row)
            claim(made.id, f"{file}:{number}", seen)
            report.count(traces=1)
            yield made
        except DataError as error:
            id = row.value.get("id") if row is not None and isinstance(row.value, dict) else None
            report.errors.append(error.at(str(file), number, id))
            yield error


def claim(id: str, where: str, seen: dict[str, str]) -> None:
    """Notes that ``id`` is used. Raises DataError (E13) where it was."""
    if id in seen:
        raise DataError("E13", "id", f"id '{id}' already used in {seen[id]}. Ids must be unique.")
    seen[id] = where
