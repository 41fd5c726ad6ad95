"""Readers of local benchmark folders, row by row: TSV of VLMEvalKit, parquet of the Hub, JSON and CSV in folders.

Nothing is downloaded, and no file outside the folder is read. ``latent_reason.data.pictures`` decodes all images and
checks their size. Images inside a table are first written to a temporary folder, so that a benchmark need not fit in
memory. A row that cannot be asked is left out and counted by reason; a fault of a file is an error.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image as PILImage

from latent_reason.data.errors import DataError
from latent_reason.data.jsonl import LINE_BYTES, decode
from latent_reason.data.pictures import ImageFolder, Limits

from .tables import CELL, READERS

REFERENCE = 64  # an image cell of at most this length is the index of another row or a path
#: the entries of a list that is stored as text: quoted, or bare up to the next comma
LIST_ENTRY = re.compile(
    r"'([^'\\]*(?:\\.[^'\\]*)*)'|\"([^\"\\]*(?:\\.[^\"\\]*)*)\"|([^\s,'\"\[\]][^,\[\]]*)", re.DOTALL
)
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
PICTURE_FOLDERS = ("", "images", "data", "data/images")  # where a row's images lie, beside its file or above it
#: faults of one row: a field, no image, an image mark, an empty text, a reserved token
ROW_FAULTS = ("E05", "E07", "E10", "E14", "E18")


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
    """The folder of a benchmark, and a temporary folder for the images inside its tables.

    ``left_out`` counts rows that cannot be asked, ``remarks`` rows that are asked with a peculiarity, by reason.
    """

    def __init__(self, folder: Path, unpacked: Path):
        self.folder, self.unpacked_folder = folder, unpacked
        self.images, self.unpacked_images = ImageFolder(folder), ImageFolder(unpacked)
        self.left_out: Counter[str] = Counter()
        self.remarks: Counter[str] = Counter()
        self.first_fault: DataError | None = None

    # -- rows ----------------------------------------------------------------------------------------------------------
    def files(self, *patterns: str, expected: str) -> list[Path]:
        """The files of the first pattern that matches any. Raises FileNotFoundError with the expected layout."""
        for pattern in patterns:
            if matches := sorted(self.folder.glob(pattern)):
                return [self.check_inside(file) for file in matches]
        raise FileNotFoundError(f"'{self.folder}' has no {' or '.join(patterns)}. Expected: {expected}")

    def check_inside(self, file: Path) -> Path:
        """The file. Raises DataError (E08) for a link out of the folder, but for one into the blobs of a Hub snapshot."""
        roots = [self.folder]
        if "snapshots" in (parts := Path(os.path.abspath(self.folder)).parts):
            roots.append(Path(*parts[: len(parts) - parts[::-1].index("snapshots") - 1]) / "blobs")
        if not any(Path(os.path.realpath(file)).is_relative_to(os.path.realpath(root)) for root in roots):
            raise DataError("E08", "", "is outside the benchmark's folder. Move the file into it.", str(file))
        return file

    def rows(self, *patterns: str, expected: str) -> Iterator[Row]:
        """Every row of every file of the first pattern that matches any. ``expected`` describes the layout."""
        for file in self.files(*patterns, expected=expected):
            read = READERS[file.suffix]
            images_by_index: dict[str, list[ImageRef]] = {}
            if file.suffix == ".tsv":  # an image cell may be the index of a later row
                for number, values in read(file):
                    if isinstance(values, DataError):
                        continue  # counted below
                    row = Row(values, file, number, self, expected)
                    if len(values.get("image", "")) > REFERENCE and "index" in values:
                        try:
                            images_by_index[values["index"]] = row.images("image")
                        except DataError:
                            continue  # reported where the row is read
            for number, values in read(file):
                if isinstance(values, DataError):
                    self.leave_out(values)
                else:
                    yield Row(values, file, number, self, expected, images_by_index)

    def items(self, read_item: Callable[[Row], Any], *patterns: str, expected: str) -> Iterator[Any]:
        """The items of ``rows``: ``read_item`` makes one, or a list of some, of each. A row whose content is faulty is
        left out."""
        for row in self.rows(*patterns, expected=expected):
            try:
                made = read_item(row)
            except DataError as error:
                if error.code not in ROW_FAULTS:
                    raise
                self.leave_out(error)
                continue
            yield from made if isinstance(made, list) else [made]

    def leave_out(self, error: DataError) -> None:
        """Counts a row that cannot be asked by what is wrong, without the values of the row."""
        self.first_fault = self.first_fault or error
        what = re.sub("'[^']*'", "'...'", error.what).partition(". ")[0]
        self.left_out[f"{error.field}: {what}"] += 1

    # -- files ---------------------------------------------------------------------------------------------------------
    def picture(
        self, name: str, folders: Iterable[str | PurePosixPath], field: str, file: Path, number: int
    ) -> ImageRef:
        """The image of a name: the first that exists in ``folders`` (relative to the benchmark's), with its suffix or
        another one. If none exists, or the name is no plain relative path, loading it is an error."""
        path = PurePosixPath(name)
        has_scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", name) is not None  # also a drive of Windows
        is_plain = not path.is_absolute() and ".." not in path.parts and not {"\\", "\0"} & set(name) and not has_scheme
        tried = [PurePosixPath(folder) / path for folder in folders] if is_plain else []
        stem = path.name.removesuffix(path.suffix) if path.suffix.lower() in SUFFIXES else path.name
        for candidate in tried + [place.with_name(stem + suffix) for place in tried for suffix in SUFFIXES]:
            if os.path.isfile(self.folder / candidate):  # False for a name that is too long, too
                return ImageRef(self.images, str(candidate), field, file, number)
        return ImageRef(self.images, str(tried[0]) if tried else name, field, file, number)

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

    @property
    def folder(self) -> PurePosixPath:
        """The folder of the row's file, relative to the benchmark's."""
        return PurePosixPath(self.file.relative_to(self.source.folder).parent.as_posix())

    def error(self, field: str, what: str, code: str = "E05") -> DataError:
        return DataError(code, field, what, str(self.file), self.number)

    def remark(self, reason: str) -> None:
        """Counts a peculiarity of a row that is asked all the same."""
        self.source.remarks[reason] += 1

    def get(self, *names: str, default: Any = ...) -> Any:
        """The raw value of a field. Raises DataError if all names are missing or empty and there is no ``default``."""
        for name in names:
            value = self.values.get(name)
            if value not in (None, "") and value == value:  # NaN is an empty cell too
                return value
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

    def question(self, *names: str) -> str:
        """The question, "" if it is empty because its text is in the image. Raises DataError if there is no column."""
        if not set(names) & set(self.values):
            raise self.error(" or ".join(names), f"missing. Expected: {self.expected}")
        return self.text(*names, default="")

    def texts(self, *names: str, default: Any = ...) -> list[str]:
        """A list of texts or numbers, or the values of an object (``{"A": ..., "B": ...}``); a list that is stored as
        text is parsed."""
        value = self.get(*names, default=default)
        if value is default:
            return value
        if isinstance(value, str) and value.startswith("["):
            value = parse_list(value)
        if isinstance(value, dict):
            value = list(value.values())
        if not isinstance(value, list) or not all(isinstance(entry, str | int | float | None) for entry in value):
            raise self.error(names[0], f"expected a list of texts. Expected: {self.expected}")
        return [str(entry) for entry in value if entry is not None]

    def columns(self, names: str = "ABCDEFGHIJ") -> list[str]:
        """The options in columns A, B, C, ..., up to the first empty one."""
        options = []
        for name in names:
            if self.values.get(name) in (None, ""):
                break
            options.append(self.text(name))
        return options

    def letter(self, *names: str) -> str:
        """A letter such as ``B``, ``(b)``, ``B.`` or ``B. the text of the option`` as ``B``."""
        value = self.text(*names)
        match = re.fullmatch(r"\(([A-Za-z])\)(?:[.:]?\s*.*)?|([A-Za-z])(?:[.:)、．].*)?", value, re.DOTALL)
        if not match:
            raise self.error(names[0], f"'{value[:40]}' is not an option letter. Expected: {self.expected}")
        return (match[1] or match[2]).upper()

    # -- images --------------------------------------------------------------------------------------------------------
    def images(self, *names: str, optional: bool = False) -> list[ImageRef]:
        """The images of the first of these fields that has any: bytes, ``{bytes, path}``, base64, data URLs, paths, or
        in a TSV the index of another row."""
        for name in names:
            value = self.values.get(name)
            value = value.strip() if isinstance(value, str) else value
            if value in (None, "", []):
                continue
            if isinstance(value, str) and value.startswith("["):
                value = parse_list(value)
            cells = value if isinstance(value, list) else [value]
            if refs := [ref for cell in cells if cell is not None for ref in self.cell_images(cell, name)]:
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
        is_data = cell.startswith("data:") or (len(cell) > REFERENCE and "." not in cell)
        if is_data and "path" not in name:
            return [self.store_image(self.decoded(cell, name), name)]
        if self.file.suffix == ".tsv" and "path" not in name and "." not in cell:
            if cell not in self.images_by_index:
                raise self.error(name, f"'{cell}' is not the index of a row with an image. Correct the cell.", "E07")
            return self.images_by_index[cell]
        folders = [above / folder for above in (self.folder, *self.folder.parents) for folder in PICTURE_FOLDERS]
        return [self.source.picture(cell, folders, name, self.file, self.number)]

    def decoded(self, cell: str, name: str) -> bytes:
        """The bytes of an image in base64 or in a data URL."""
        if len(cell) > CELL:
            raise self.error(name, f"larger than {Limits.bytes / 2**20:,.0f} MiB. Use a smaller image.")
        try:
            return base64.b64decode("".join((cell.partition("base64,")[2] or cell).split()), validate=True)
        except binascii.Error:
            what = "is neither an image in base64 nor the index of another row. Replace it."
            raise self.error(name, what) from None

    def store_image(self, data: bytes, name: str) -> ImageRef:
        """Writes an image of a table to the temporary folder, under the hash of its bytes."""
        digest = sha256(data).hexdigest()[:24]
        if not (self.source.unpacked_folder / digest).exists():
            (self.source.unpacked_folder / digest).write_bytes(data)
        return ImageRef(self.source.unpacked_images, digest, name, self.file, self.number)


def parse_list(text: str) -> list[str]:
    """The entries of a list that is stored as text, such as ``['a', 'b']``, ``[1, 2.5]`` or ``["it's", 'b']``."""
    entries = []
    for single, double, bare in LIST_ENTRY.findall(text.strip()):
        quoted = single or double
        entries.append(re.sub(r"\\(['\"\\])", r"\1", quoted) if quoted or not bare else bare.strip())
    return entries
