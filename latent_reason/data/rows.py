"""Read the rows of a data file: each becomes a Trace or a DataError with its file and row."""

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
    """A row of a file before it is parsed."""

    number: int  # lines of a .jsonl from 1; elements of a .json, items of a .tar and rows of a .parquet from 0
    data: bytes | dict | DataError  # JSON text, its value, or the error of reading it
    picture: Callable[[str], bytes | None] | None = None  # returns the bytes of an image stored with the row, by name
    name_prefix: str | None = None  # prefix of image names in a shard; None: images may be files, too


@dataclass
class Row:
    """One decoded row of ``file`` and what a reader needs to convert it to a Trace."""

    value: Any
    file: Path
    number: int
    load: Load
    warn: Warn


def text_rows(file: Path) -> Iterator[Raw]:
    """Yield the lines of a .jsonl file or the elements of a .json file."""
    return (Raw(number, data) for number, data in (elements if file.suffix == ".json" else lines)(file))


def decode_row(raw: Raw, file: Path, pictures: ImageFolder, warn: Warn) -> Row:
    """Decode a raw row. Raises DataError if it cannot be read."""
    if isinstance(raw.data, DataError):
        raise raw.data

    def load(name: str, field: str):
        data = None if raw.picture is None else raw.picture(name)
        if data is not None:
            return decode_picture(data, name, field, warn, pictures.limits)
        if raw.name_prefix is not None:
            raise DataError(
                "E21",
                field,
                f"'{raw.name_prefix}{name[:80]}' is named in the record but missing in the shard. Pack the set again.",
            )
        return pictures.load(name, field, warn)

    return Row(raw.data if isinstance(raw.data, dict) else decode(raw.data), file, raw.number, load, warn)


def rows(
    file: Path,
    raw_rows: Iterable[Raw],
    trace: Callable[[Row], Trace],
    pictures: ImageFolder,
    ids: dict[str, str],
    report: Report,
) -> Iterator[Trace | DataError]:
    """Convert every raw row of a file with ``trace``. ``ids`` (id -> file:row) detects duplicate ids; counts go to
    ``report``."""
    warned: set[str] = set()

    def warn(kind: str, sentence: str) -> None:
        if kind not in warned:
            warned.add(kind)
            report.warnings.append(f"{file}:{number}: {sentence}.")

    is_first = True
    for raw in raw_rows:
        number, data = raw.number, raw.data
        if is_first and isinstance(data, bytes) and data.startswith(BOM):
            raw = raw._replace(data=data[len(BOM) :])
            warn("bom", "the file begins with a byte order mark, which is skipped")
        is_first = False
        if file.suffix == ".jsonl" and not raw.data.strip():
            report.count(empty_lines=1)
            continue
        report.count(rows=1)
        row = None
        try:
            row = decode_row(raw, file, pictures, warn)
            result = trace(row)
            register_id(result.id, f"{file}:{number}", ids)
            report.count(traces=1)
            yield result
        except DataError as error:
            id = row.value.get("id") if row is not None and isinstance(row.value, dict) else None
            report.errors.append(error.at(str(file), number, id))
            yield error


def register_id(id: str, where: str, ids: dict[str, str]) -> None:
    """Record that ``id`` is used at ``where``. Raises DataError (E13) for a duplicate id."""
    if id in ids:
        raise DataError("E13", "id", f"id '{id}' already used in {ids[id]}. Ids must be unique.")
    ids[id] = where
