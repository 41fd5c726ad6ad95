"""Read the rows of a data file: each becomes a Trace or a DataError with its file and row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL.Image import Image as Picture

from ..trace import Trace
from .errors import DataError, Report
from .jsonl import BOM, LINE_BYTES, decode, elements, lines
from .pictures import ImageFolder
from .pictures import decode as decode_picture
from .record import Load, Warn

ROWS_OF_A_KIND = 100  # a file whose first rows all lack one field is not read further


class Raw(NamedTuple):
    """A row of a file before it is parsed."""

    number: int  # lines of a .jsonl from 1; elements of a .json, items of a .tar and rows of a .parquet from 0
    data: bytes | dict | DataError  # JSON text, its value, or the error of reading it
    picture: Callable[[str], bytes | None] | None = None  # returns the bytes of an image stored with the row, by name
    name_prefix: str | None = None  # prefix of image names in a shard; None: images may be files, too
    is_line: bool = False  # a line of a text file, which may be blank


@dataclass
class Row:
    """One decoded row of ``file`` and what a reader needs to convert it to a Trace."""

    value: Any
    file: Path
    number: int
    load: Load
    decode: Callable[[bytes, str, str], Picture]  # (bytes, name, field) -> image
    warn: Warn


def text_rows(file: Path) -> Iterator[Raw]:
    """Yield the lines of a file of JSON lines or the elements of a JSON list. The content decides, not the suffix."""
    if _has_lines(file):
        return (Raw(number, data, is_line=True) for number, data in lines(file))
    return (Raw(number, data) for number, data in elements(file))


def _has_lines(file: Path) -> bool:
    """Whether a file holds one JSON value per line: it has several, or it is no list and named so."""
    with open(file, "rb") as handle:
        first = handle.readline(LINE_BYTES).removeprefix(BOM)
        while first.isspace():
            first = handle.readline(LINE_BYTES)
        has_more = first.endswith(b"\n") and bool(handle.read(2**16).strip())
    if has_more:
        try:
            decode(first)
            return True
        except DataError:
            pass  # a value of several lines, or a broken line
    return file.suffix == ".jsonl" and not first.lstrip().startswith(b"[")


def holds_one_object(file: Path) -> bool:
    """Whether a file begins with an object and has no row per line."""
    with open(file, "rb") as handle:
        begin = handle.read(2**16).removeprefix(BOM).lstrip()
    return begin.startswith(b"{") and not _has_lines(file)


def decode_row(raw: Raw, file: Path, pictures: ImageFolder, warn: Warn) -> Row:
    """Decode a raw row. Raises DataError if it cannot be read."""
    if isinstance(raw.data, DataError):
        raise raw.data

    def open_bytes(data: bytes, name: str, field: str) -> Picture:
        return decode_picture(data, name, field, warn, pictures.limits)

    def load(name: str, field: str) -> Picture:
        data = None if raw.picture is None else raw.picture(name)
        if data is not None:
            return open_bytes(data, name, field)
        if raw.name_prefix is not None:
            raise DataError(
                "E21",
                field,
                f"'{raw.name_prefix}{name[:80]}' is named in the record but missing in the shard. Pack the set again.",
            )
        return pictures.load(name, field, warn)

    value = raw.data if isinstance(raw.data, dict) else decode(raw.data)
    return Row(value, file, raw.number, load, open_bytes, warn)


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
    warned: dict[str, tuple[int, str]] = {}  # kind -> place in the warnings of the report, sentence
    times: Counter[str] = Counter()

    def warn(kind: str, sentence: str) -> None:
        if kind not in warned:
            warned[kind] = len(report.warnings), f"{file}:{number}: {sentence}."
            report.warnings.append(warned[kind][1])
        times[kind] += 1

    is_first = True
    for raw in raw_rows:
        number, data = raw.number, raw.data
        if is_first and isinstance(data, bytes) and data.startswith(BOM):
            raw = raw._replace(data=data[len(BOM) :])
            warn("bom", "the file begins with a byte order mark, which is skipped")
        is_first = False
        if raw.is_line and not raw.data.strip():
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
    for kind, (place, sentence) in warned.items():
        if times[kind] > 1:
            report.warnings[place] = f"{sentence} ({times[kind]} times in this file)"


LACKS = ("missing", "there is no such column")  # how the errors of a row that lacks a field begin


def one_error_of_kind(
    results: Iterator[Trace | DataError], file: Path, report: Report, guess: Callable[[], str]
) -> Iterator[Trace | DataError]:
    """The results of a file, with one error for a file whose rows all have the same one, if they are many. If its first
    rows lack a field or are no JSON, the file is of another kind and is not read further: ``guess`` says of which format
    it seems to be."""
    held: list[DataError] = []
    for result in results:
        if isinstance(result, DataError) and (not held or _is_same(result, held[0])):
            held.append(result)
            if len(held) == ROWS_OF_A_KIND and _is_of_other_kind(result):
                break
            continue
        yield from held
        yield result
        yield from results
        return
    if len(held) >= ROWS_OF_A_KIND or (
        len(held) > 1 and _is_of_other_kind(held[0]) and len(set(map(_kind, held))) == 1
    ):
        del report.errors[-len(held) :]
        first, is_whole = held[0], len(held) < ROWS_OF_A_KIND or not _is_of_other_kind(held[0])
        rest = " So in all its rows" if is_whole else f" So in its first {len(held)} rows"
        rest += f": the file is of another format.{guess()}" if _is_of_other_kind(first) else "."
        held = [DataError(first.code, first.field, first.what + rest).at(str(file))]
        report.errors += held
    yield from held


def _is_same(error: DataError, first: DataError) -> bool:
    """Whether two rows of a file have one error. The lines of a file that is no JSON fail in different ways."""
    return error.code == first.code == "E02" or _kind(error) == _kind(first)


def _kind(error: DataError) -> tuple[str, str, str]:
    return error.code, error.field, error.what


def _is_of_other_kind(error: DataError) -> bool:
    return error.code == "E02" or error.field == "record" or error.what.startswith(LACKS)


def register_id(id: str, where: str, ids: dict[str, str]) -> None:
    """Record that ``id`` is used at ``where``. Raises DataError (E13) for a duplicate id."""
    if id in ids:
        raise DataError("E13", "id", f"id '{id}' already used in {ids[id]}. Ids must be unique.")
    ids[id] = where
