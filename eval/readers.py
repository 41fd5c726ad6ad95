"""Readers of local benchmark files, row by row: TSV of VLMEvalKit, parquet of the Hub, JSON and CSV in folders.

Nothing is downloaded, and no file outside the folder is read. ``latent_reason.data.pictures`` decodes all images and
checks their size. Images inside a table are first written to a temporary folder, so that a benchmark need not fit in
memory.
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

from latent_reason.data import parquet
from latent_reason.data.errors import DataError
from latent_reason.data.jsonl import BOM, LINE_BYTES, decode, elements, lines
from latent_reason.data.pictures import ImageFolder, Limits

CELL = 4 * Limits.bytes // 3 + 1024  # longest cell: characters of an image in base64
REFERENCE = 64  # an image cell of at most this length is the index of another row
LIST_ENTRY = re.compile(r"""'([^']*)'|"([^"]*)\"""")  # the entries of a list that is stored as text


@dataclass(frozen=True)
class ImageRef:
    """An image of a row, decoded by ``load``. ``name`` is unique within the benchmark."""

    folder: ImageFolder
    name: str
    field: str
    file: Path
    number: int

    def load(self) -> PILImage.Image:
        """Raises DataError E07, E08 or E09 with file and row."""
        try:
            return self.folder.load(self.name, self.field, lambda kind, sentence: None)
        except DataError as error:
            raise error.at(str(self.file), self.number) from None


class Source:
    """The folder of a benchmark, and a temporary folder for the images inside its tables."""

    def __init__(self, folder: Path, unpacked: Path):
        self.folder, self.unpacked_folder = folder, unpacked
        self.images, self.unpacked_images = ImageFolder(folder), ImageFolder(unpacked)

    def files(self, *patterns: str, expected: str) -> list[Path]:
        """The files of the first pattern that matches any. Raises FileNotFoundError with the expected layout."""
        for pattern in patterns:
            if matches := sorted(self.folder.glob(pattern)):
                return [self.check_inside(file) for file in matches]
        raise FileNotFoundError(f"'{self.folder}' has no {' or '.join(patterns)}. Expected: {expected}")

    def check_inside(self, file: Path) -> Path:
        if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(self.folder)):
            raise DataError("E08", "", "is outside the benchmark's folder. Move the file into it.", str(file))
        return file

    def rows(self, *patterns: str, expected: str) -> Iterator[Row]:
        """Every row of every file of the first pattern that matches any. ``expected`` describes the layout."""
        for file in self.files(*patterns, expected=expected):
            read = READERS[file.suffix]
            images_by_index: dict[str, list[ImageRef]] = {}
            if file.suffix == ".tsv":  # an image cell may be the index of a later row
                for number, values in read(file):
                    row = Row(values, file, number, self, expected, images_by_index)
                    if "image" in values and len(values["image"]) > REFERENCE and "index" in values:
                        images_by_index[values["index"]] = row.images("image")
            for number, values in read(file):
                yield Row(values, file, number, self, expected, images_by_index)

    def text(self, path: str, expected: str) -> str:
        """A text file of the folder. Raises FileNotFoundError with the expected layout, DataError E01 or E02."""
        file = self.folder / path
        if not file.is_file():
            raise FileNotFoundError(f"'{file}' is missing. Expected: {expected}")
        with open(self.check_inside(file), "rb") as handle:
            data = handle.read(LINE_BYTES + 1)
        if len(data) > LINE_BYTES:
            raise DataError("E02", "", f"is larger than {LINE_BYTES // 2**20} MiB. Expected: {expected}", str(file))
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise DataError("E01", "", "is not UTF-8. Save it as UTF-8.", str(file)) from None

    def json(self, path: str, expected: str) -> Any:
        """The value of a JSON file of the folder. Raises as ``text`` does, and DataError if it is not strict JSON."""
        try:
            return decode(self.text(path, expected).encode())
        except DataError as error:
            raise error.at(error.file or str(self.folder / path), error.row, error.id) from None


@contextmanager
def open_source(folder: str | Path) -> Iterator[Source]:
    """Opens the folder of a benchmark. Raises FileNotFoundError if it does not exist."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"there is no folder '{folder}'. Give the folder with the benchmark's files.")
    with tempfile.TemporaryDirectory(prefix="latent_reason-") as unpacked:
        yield Source(Path(folder), Path(unpacked))


class Row:
    """One row. Its fields are read by name; of several names the first non-empty field counts."""

    def __init__(
        self,
        values: dict,
        file: Path,
        number: int,
        source: Source,
        expected: str,
        images_by_index: dict[str, list[ImageRef]] | None = None,
    ):
        self.values, self.file, self.number, self.source, self.expected = values, file, number, source, expected
        self.images_by_index = images_by_index or {}

    @property
    def default_id(self) -> str:
        """An id for a row without one: file and row number."""
        return f"{self.file.stem}-{self.number}"

    def error(self, field: str, what: str, code: str = "E05") -> DataError:
        return DataError(code, field, what, str(self.file), self.number)

    def get(self, *names: str, default: Any = ...) -> Any:
        """The raw value of a field. Raises DataError if all names are missing or empty and there is no ``default``."""
        for name in names:
            if self.values.get(name) not in (None, ""):
                return self.values[name]
        if default is not ...:
            return default
        raise self.error(" or ".join(names), f"missing or empty. Expected: {self.expected}")

    def text(self, *names: str, default: str | None = ...) -> str:
        """A text, or a number as text."""
        value = self.get(*names, default=default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is not default and (isinstance(value, bool) or not isinstance(value, str | int | float)):
            raise self.error(names[0], f"expected a text, found {type(value).__name__}. Expected: {self.expected}")
        return value if value is default else str(value).strip()

    def texts(self, *names: str, default: Any = ...) -> list[str]:
        """A list of texts; a list that is stored as text is parsed."""
        value = self.get(*names, default=default)
        if isinstance(value, str) and value.startswith("["):
            value = parse_list(value)
        if value is not default and not (
            isinstance(value, list) and all(isinstance(entry, str | int | float) for entry in value)
        ):
            raise self.error(names[0], f"expected a list of texts. Expected: {self.expected}")
        return value if value is default else [str(entry) for entry in value]

    def columns(self, names: str = "ABCDEFGHIJ") -> list[str]:
        """The options in columns A, B, C, ..., up to the first empty one."""
        options = []
        for name in names:
            if self.values.get(name) in (None, ""):
                break
            options.append(self.text(name))
        return options

    def letter(self, *names: str) -> str:
        """A letter such as ``B``, ``(b)`` or ``B.`` as ``B``."""
        value = self.text(*names)
        match = re.fullmatch(r"\(?([A-Za-z])\)?\.?", value)
        if not match:
            raise self.error(names[0], f"'{value[:40]}' is not an option letter. Expected: {self.expected}")
        return match[1].upper()

    # -- images --------------------------------------------------------------------------------------------------------
    def images(self, *names: str, optional: bool = False) -> list[ImageRef]:
        """The images of the first of these fields that has any: bytes, ``{bytes, path}``, paths, in a TSV base64."""
        for name in names:
            value = self.values.get(name)
            if value in (None, "", []):
                continue
            if isinstance(value, str) and value.startswith("["):
                value = parse_list(value)
            cells = value if isinstance(value, list) else [value]
            if refs := [ref for cell in cells for ref in self.cell_images(cell, name)]:
                return refs
        if optional:
            return []
        raise self.error(names[0], f"has no image. Expected: {self.expected}", "E07")

    def cell_images(self, cell: Any, name: str) -> list[ImageRef]:
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes):
            return [self.store_image(cell, name)]
        if not isinstance(cell, str):
            raise self.error(name, f"expected an image, found {type(cell).__name__}. Expected: {self.expected}")
        if self.file.suffix != ".tsv" or "path" in name:
            return [ImageRef(self.source.images, cell, name, self.file, self.number)]
        if len(cell) <= REFERENCE:
            if cell not in self.images_by_index:
                raise self.error(name, f"'{cell}' is not the index of a row with an image. Correct the cell.", "E07")
            return self.images_by_index[cell]
        if len(cell) > CELL:
            raise self.error(name, f"larger than {Limits.bytes / 2**20:,.0f} MiB. Use a smaller image.", "E09")
        try:
            return [self.store_image(base64.b64decode(cell.partition("base64,")[2] or cell, validate=True), name)]
        except binascii.Error:
            raise self.error(
                name, "is neither an image in base64 nor the index of another row. Replace it.", "E09"
            ) from None

    def store_image(self, data: bytes, name: str) -> ImageRef:
        """Writes an image of a table to the temporary folder, under the hash of its bytes."""
        digest = sha256(data).hexdigest()[:24]
        if not (self.source.unpacked_folder / digest).exists():
            (self.source.unpacked_folder / digest).write_bytes(data)
        return ImageRef(self.source.unpacked_images, digest, name, self.file, self.number)


def parse_list(text: str) -> list[str]:
    """The quoted entries of a list that is stored as text, such as ``['a', 'b']``."""
    return [single or double for single, double in LIST_ENTRY.findall(text)]


# -- files -> (number, fields) -----------------------------------------------------------------------------------------
def read_table(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a TSV or CSV with a header, counted from 1."""
    old_limit, number = csv.field_size_limit(CELL), 0
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
                        f"has {len(row)} cells, but the header has {len(header)}. Copy the file again.",
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
        csv.field_size_limit(old_limit)


def read_parquet(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a parquet file, counted from 0."""
    number = 0
    with parquet.opened(file) as handle:
        try:
            for values in parquet.one_by_one(handle):
                yield number, values
                number += 1
        except DataError as error:
            raise error.at(str(file), number) from None


def read_json(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
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


READERS = {".tsv": read_table, ".csv": read_table, ".parquet": read_parquet, ".json": read_json, ".jsonl": read_json}
