"""The data files of a folder and their rows: JSON, JSON lines, CSV, parquet, arrow, and tar files of a WebDataset.

Folders as they lie on the Hub, in its cache, and as ``save_to_disk`` of the ``datasets`` library writes them are read.
Every row is streamed.
"""

from __future__ import annotations

import ast
import csv
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from . import parquet, tar
from .errors import DataError
from .jsonl import LINE_BYTES, decode
from .pictures import Limits
from .record import SPLIT
from .rows import Raw, holds_one_object, text_rows

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".tar")
#: files that describe a data set and hold no rows of it
SIDE_FILES = re.compile(
    r"\..*|(dataset_infos?|dataset_dict|state|dataset_card|croissant|README)\.json|cache-[0-9a-f]+\.arrow"
)
#: files that describe a data set if they hold one object, and rows if they hold more
SETTINGS = re.compile(r"(config|info|metadata|stats|package|license|preprocessor_config)\.json", re.IGNORECASE)
UNREAD = (
    ".gz",
    ".tgz",
    ".bz2",
    ".xz",
    ".zst",
    ".zip",
    ".7z",
    ".feather",
    ".xlsx",
    ".xls",
    ".pkl",
    ".npy",
    ".npz",
    ".h5",
)
SIDE_FOLDERS = re.compile(r"\..*|__MACOSX|parquet_info")
#: words of file and folder names -> split, as the datasets library understands them, and those of other sets
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "val",
    "valid": "val",
    "val": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "testmini": "test",
    "minitest": "test",
    "minival": "val",
}
EVAL_WORDS = ("eval", "evaluation")  # a test set, unless another word says more: eval_train
WORD_ENDS = re.compile(r"[^A-Za-z]+|(?<=[a-z])(?=[A-Z])")


def list_files(source: Path, skip_folder: Iterable[str] = ()) -> list[Path]:
    """The data files of a folder and the folders below, without side files; or the one file that is named. A file of
    settings is a side file if there are others.

    Folders whose name contains an entry of ``skip_folder`` are left out. Raises FileNotFoundError.
    """
    if not source.exists():
        raise FileNotFoundError(f"There is no file or folder '{source}'. Correct the path.")
    if source.is_file():
        return [source]
    skipped = tuple(skip_folder)

    def is_data(file: Path) -> bool:
        *folders, name = file.relative_to(source).parts
        return not SIDE_FILES.fullmatch(name) and not any(
            SIDE_FOLDERS.fullmatch(folder) or any(text in folder for text in skipped) for folder in folders
        )

    files = sorted(f for f in source.rglob("*") if f.suffix in SUFFIXES and is_data(f) and f.is_file())
    return [f for f in files if not (SETTINGS.fullmatch(f.name) and holds_one_object(f))] or files


def split_named(name: str) -> str | None:
    """The split that a name says: val for ``val2017`` or ``VAL``. None if it says none."""
    if SPLIT.fullmatch(name):
        return name
    words = [word.lower() for word in WORD_ENDS.split(name)]
    split = next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)
    return split or ("test" if any(word in EVAL_WORDS for word in words) else None)


def split_of(file: Path, folder: Path) -> str:
    """The split that the name of a file says, or of the nearest folder that it is in, up to ``folder``; train by
    default."""
    inside = file.relative_to(folder) if file.is_relative_to(folder) else Path(file.name)
    names = [*reversed(inside.with_suffix("").parts), os.path.basename(os.path.abspath(folder))]
    return next((split for name in names if (split := split_named(name))), "train")


def parse_cell(text: str) -> Any:
    """The list or object that a cell of text holds, as JSON or as pandas writes it: ``['a.png', None]``. The text itself
    if it holds none."""
    if not text.startswith(("[", "{")):
        return text
    try:
        return decode(text.encode("utf-8", "surrogatepass"))
    except DataError:
        pass
    try:
        value = ast.literal_eval(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text
    return value


def raw_rows(file: Path, limits: Limits | None = None) -> Iterator[Raw]:
    """The rows of a data file, by its suffix. Raises DataError (E20) for a file that cannot be read."""
    if file.suffix.lower() in UNREAD:
        what = f"'{file.suffix}' files are not read. Unpack the file, or save it as one of {', '.join(SUFFIXES)}."
        raise DataError("E20", "", what, str(file))
    if file.suffix == ".parquet":
        return parquet.rows(file)
    if file.suffix == ".arrow":
        return parquet.arrow_rows(file)
    if file.suffix == ".tar":
        return tar.rows(file, limits)
    if file.suffix in (".csv", ".tsv"):
        return _csv_rows(file)
    return text_rows(file)


def _csv_rows(file: Path) -> Iterator[Raw]:
    """The rows of a table of text below a line of column names, numbered by the line where they end, from 1."""
    csv.field_size_limit(LINE_BYTES)  # the default is too small for an image in base64
    number = 1
    try:
        with open(file, encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(_text_lines(handle), delimiter="\t" if file.suffix == ".tsv" else ",", strict=True)
            columns = next(reader, [])
            if len(set(columns)) < len(columns):
                raise DataError("E04", "", "two columns have one name. Rename one.")
            for cells in reader:
                number = reader.line_num
                if cells:
                    yield Raw(number, _csv_row(columns, cells))
    except UnicodeDecodeError:
        yield Raw(number + 1, DataError("E01", "", "not UTF-8 below this line. Save the file as UTF-8."))
    except csv.Error as error:
        yield Raw(number + 1, DataError("E20", "", f"cannot be read as CSV ({error}). Save it again."))
    except DataError as error:
        yield Raw(number, error)


def _text_lines(handle: TextIO) -> Iterator[str]:
    """The lines of a text file, none of which is held in memory if it is longer than ``LINE_BYTES``."""
    while line := handle.readline(LINE_BYTES + 1):
        if len(line) > LINE_BYTES:
            raise csv.Error(f"a line longer than {LINE_BYTES // 2**20} MiB")
        yield line


def _csv_row(columns: list[str], cells: list[str]) -> dict | DataError:
    if len(cells) != len(columns):
        what = f"{len(cells)} cells below {len(columns)} column names. Quote cells that contain the separator."
        return DataError("E10", "", what)
    return dict(zip(columns, cells, strict=True))
