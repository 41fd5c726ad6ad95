"""Local files of benchmarks, row by row: TSV as VLMEvalKit writes it, parquet as the Hub does, JSON and CSV in folders.

Nothing is downloaded, and nothing outside the folder is read. ImageBatch, however they are stored, are decoded by
``latent_reason.data.pictures``, within its bounds; those inside a table are first unpacked into a folder that goes
away, so that a benchmark need not fit in memory.
"""

from __future__ import annotations

import base64
import binascii
import csv
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from PIL import Image as PILImage

from latent_reason.data import parquet as packed
from latent_reason.data.errors import DataError
from latent_reason.data.jsonl import BOM, LINE_BYTES, decode, elements, lines
from latent_reason.data.pictures import ImageBatch, Limits

CELL = 4 * Limits.bytes // 3 + 1024  # characters of a picture in base64
REFERENCE = 64  # a picture cell no longer than this names another row
LISTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")  # the entries of a list that was written as text


@dataclass(frozen=True)
class Shown:
    """A picture of a row, decoded when it is asked for. ``name`` tells it from others of its benchmark."""

    pictures: ImageBatch
    name: str
    field: str
    file: Path
    number: int

    def load(self) -> PILImage.Image:
        """Raises DataError E07, E08 or E09 with file and row."""
        try:
            return self.pictures.load(self.name, self.field, lambda kind, sentence: None)
        except DataError as error:
            raise error.at(str(self.file), self.number) from None


class Source:
    """The folder of a benchmark, and a place for the pictures that are packed in its tables."""

    def __init__(self, folder: Path, unpacked: Path):
        self.folder, self.place = folder, unpacked
        self.own, self.unpacked = ImageBatch(folder), ImageBatch(unpacked)

    def files(self, *patterns: str, expected: str) -> list[Path]:
        """The files of the first pattern that has any. Raises FileNotFoundError that says what is expected."""
        for pattern in patterns:
            if found := sorted(self.folder.glob(pattern)):
                return [self.inside(file) for file in found]
        raise FileNotFoundError(f"'{self.folder}' holds no {' or '.join(patterns)}. Expected: {expected}")

    def inside(self, file: Path) -> Path:
        if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(self.folder)):
            raise DataError("E08", "", "leaves the benchmark's folder. Move the file inside it.", str(file))
        return file

    def rows(self, *patterns: str, expected: str) -> Iterator[Row]:
        """Every row of every file of the first pattern that has any; ``expected`` is the layout in words."""
        for file in self.files(*patterns, expected=expected):
            read = READERS[file.suffix]
            held: dict[str, list[Shown]] = {}
            if file.suffix == ".tsv":  # a picture cell may name a row further down
                for number, values in read(file):
                    row = Row(values, file, number, self, expected, held)
                    if "image" in values and len(values["image"]) > REFERENCE and "index" in values:
                        held[values["index"]] = row.pictures("image")
            for number, values in read(file):
                yield Row(values, file, number, self, expected, held)

    def text(self, path: str, expected: str) -> str:
        """A text file of a folder. Raises FileNotFoundError that says what is expected, DataError E01 or E02."""
        file = self.folder / path
        if not file.is_file():
            raise FileNotFoundError(f"'{file}' is missing. Expected: {expected}")
        with open(self.inside(file), "rb") as handle:
            data = handle.read(LINE_BYTES + 1)
        if len(data) > LINE_BYTES:
            raise DataError("E02", "", f"is larger than {LINE_BYTES // 2**20} MiB. Expected: {expected}", str(file))
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise DataError("E01", "", "is not UTF-8. Save it as UTF-8.", str(file)) from None

    def json(self, path: str, expected: str) -> Any:
        """What a JSON file of a folder holds. Raises as ``text`` does, and DataError for what is not strict JSON."""
        try:
            return decode(self.text(path, expected).encode())
        except DataError as error:
            raise error.at(error.file or str(self.folder / path), error.row, error.id) from None


@contextmanager
def opened(folder: str | Path) -> Iterator[Source]:
    """Raises FileNotFoundError where there is no such folder."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"there is no folder '{folder}'. Name the one that holds the benchmark's files.")
    with tempfile.TemporaryDirectory(prefix="latent_reason-") as unpacked:
        yield Source(Path(folder), Path(unpacked))


class Row:
    """One row, whose fields are asked for by name; of several names the first that is there counts."""

    def __init__(
        self,
        values: dict,
        file: Path,
        number: int,
        source: Source,
        expected: str,
        held: dict[str, list[Shown]] | None = None,
    ):
        self.values, self.file, self.number, self.source, self.expected = values, file, number, source, expected
        self.held = held or {}

    @property
    def place(self) -> str:
        """An id for a row that has none."""
        return f"{self.file.stem}-{self.number}"

    def wrong(self, field: str, what: str, code: str = "E05") -> DataError:
        return DataError(code, field, what, str(self.file), self.number)

    def get(self, *names: str, default: Any = ...) -> Any:
        """A field as it is. Raises DataError where none of the names is there, unless there is a ``default``."""
        for name in names:
            if self.values.get(name) not in (None, ""):
                return self.values[name]
        if default is not ...:
            return default
        raise self.wrong(" or ".join(names), f"missing or empty. Expected: {self.expected}")

    def text(self, *names: str, default: str | None = ...) -> str:
        """A text, or a number as text."""
        value = self.get(*names, default=default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is not default and (isinstance(value, bool) or not isinstance(value, str | int | float)):
            raise self.wrong(names[0], f"expected a text, found {type(value).__name__}. Expected: {self.expected}")
        return value if value is default else str(value).strip()

    def texts(self, *names: str, default: Any = ...) -> list[str]:
        """A list of texts; a list written as text is read as one."""
        value = self.get(*names, default=default)
        if isinstance(value, str) and value.startswith("["):
            value = [one or other for one, other in LISTED.findall(value)]
        if value is not default and not (
            isinstance(value, list) and all(isinstance(one, str | int | float) for one in value)
        ):
            raise self.wrong(names[0], f"expected a list of texts. Expected: {self.expected}")
        return value if value is default else [str(one) for one in value]

    def columns(self, names: str = "ABCDEFGHIJ") -> list[str]:
        """The options that stand in columns A, B, C, ..., up to the first that is empty."""
        found = []
        for name in names:
            if self.values.get(name) in (None, ""):
                break
            found.append(self.text(name))
        return found

    def letter(self, *names: str) -> str:
        """A letter such as ``B``, ``(b)`` or ``B.`` as ``B``."""
        value = self.text(*names)
        found = re.fullmatch(r"\(?([A-Za-z])\)?\.?", value)
        if not found:
            raise self.wrong(names[0], f"'{value[:40]}' is no option letter. Expected: {self.expected}")
        return found[1].upper()

    # -- pictures ------------------------------------------------------------------------------------------------------
    def pictures(self, *names: str, optional: bool = False) -> list[Shown]:
        """The pictures of the first of these fields that has any: bytes, ``{bytes, path}``, paths, in a TSV base64."""
        for name in names:
            value = self.values.get(name)
            if value in (None, "", []):
                continue
            if isinstance(value, str) and value.startswith("["):
                value = [one or other for one, other in LISTED.findall(value)]
            cells = value if isinstance(value, list) else [value]
            if found := [shown for cell in cells for shown in self.shown(cell, name)]:
                return found
        if optional:
            return []
        raise self.wrong(names[0], f"no picture there. Expected: {self.expected}", "E07")

    def shown(self, cell: Any, name: str) -> list[Shown]:
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes):
            return [self.kept(cell, name)]
        if not isinstance(cell, str):
            raise self.wrong(name, f"expected a picture, found {type(cell).__name__}. Expected: {self.expected}")
        if self.file.suffix != ".tsv" or "path" in name:
            return [Shown(self.source.own, cell, name, self.file, self.number)]
        if len(cell) <= REFERENCE:
            if cell not in self.held:
                raise self.wrong(name, f"'{cell}' is no index of a row that holds a picture. Correct the cell.", "E07")
            return self.held[cell]
        if len(cell) > CELL:
            raise self.wrong(name, f"larger than {Limits.bytes / 2**20:,.0f} MiB. Make it smaller.", "E09")
        try:
            return [self.kept(base64.b64decode(cell.partition("base64,")[2] or cell, validate=True), name)]
        except binascii.Error:
            raise self.wrong(
                name, "neither a picture in base64 nor the index of another row. Replace it.", "E09"
            ) from None

    def kept(self, data: bytes, name: str) -> Shown:
        stored = sha256(data).hexdigest()[:24]
        if not (self.source.place / stored).exists():
            (self.source.place / stored).write_bytes(data)
        return Shown(self.source.unpacked, stored, name, self.file, self.number)


# -- files -> (number, fields) -----------------------------------------------------------------------------------------
def table(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a TSV or CSV with a header, counted from 1."""
    before, number = csv.field_size_limit(CELL), 0
    try:
        with open(file, encoding="utf-8-sig", newline="") as handle:
            cells = csv.reader(handle, delimiter="\t" if file.suffix == ".tsv" else ",", strict=True)
            header = next(cells, None)
            if header is None:
                raise DataError("E25", "", "the file is empty. Copy it again.", str(file))
            for number, row in enumerate(cells, 1):
                if len(row) != len(header):
                    raise DataError(
                        "E05",
                        "row",
                        f"has {len(row)} cells, the header {len(header)}. Copy the file again.",
                        str(file),
                        number,
                    )
                yield number, dict(zip(header, row, strict=True))
    except UnicodeDecodeError:
        raise DataError("E01", "", "is not UTF-8. Save it as UTF-8.", str(file), number + 1) from None
    except csv.Error as error:
        raise DataError(
            "E02", "row", f"cannot be read ({error}). Copy the file again.", str(file), number + 1
        ) from None
    finally:
        csv.field_size_limit(before)


def parquet(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a parquet file, counted from 0."""
    number = 0
    with packed.opened(file) as handle:
        try:
            for values in packed.one_by_one(handle):
                yield number, values
                number += 1
        except DataError as error:
            raise error.at(str(file), number) from None


def listed(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON list (counted from 0) or of JSON lines (counted from 1)."""
    for number, data in (elements if file.suffix == ".json" else lines)(file):
        data = data.removeprefix(BOM)
        if not data.strip():
            continue
        try:
            values = decode(data)
        except DataError as error:
            raise error.at(str(file), number) from None
        if not isinstance(values, dict):
            raise DataError("E05", "row", "expected an object. Write one object a row.", str(file), number)
        yield number, values


READERS = {".tsv": table, ".csv": table, ".parquet": parquet, ".json": listed, ".jsonl": listed}
