"""Tables of benchmarks: TSV, CSV, parquet, JSON and JSON lines, one row after the other. A row that cannot be read is
given as its error, so that the other rows can be read.

Nothing is downloaded.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latent_reason.data import parquet
from latent_reason.data.errors import DataError
from latent_reason.data.jsonl import BOM, decode, elements, lines
from latent_reason.data.pictures import Limits

CELL = 4 * Limits.bytes // 3 + 1024  # longest cell: characters of an image in base64


def read_table(file: Path) -> Iterator[tuple[int, dict[str, str] | DataError]]:
    """The rows of a TSV or CSV with a header, counted from 1. A row with another number of cells is its error."""
    old_limit, number = csv.field_size_limit(CELL), 0
    try:
        with open(file, encoding="utf-8-sig", newline="") as handle:
            cells = csv.reader(handle, delimiter="\t" if file.suffix == ".tsv" else ",", strict=True)
            header = next(cells, None)
            if header is None:
                raise DataError("E25", "", "the file is empty. Copy it again.", str(file))
            for number, row in enumerate(cells, 1):
                if len(row) != len(header):
                    what = f"has {len(row)} cells, but the header has {len(header)}. Correct the row."
                    yield number, DataError("E05", "row", what, str(file), number)
                else:
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
            for values in parquet.one_by_one(parquet.row_batches(handle)):
                yield number, values
                number += 1
        except DataError as error:
            raise error.at(str(file), number) from None


def read_json(file: Path) -> Iterator[tuple[int, dict[str, Any] | DataError]]:
    """The objects of a JSON list, of an object of objects or of an object whose only value is a list of objects (counted
    from 0), or of JSON lines (counted from 1). A row that is no object is its error."""
    for number, data in (elements if file.suffix == ".json" else lines)(file):
        data = data.removeprefix(BOM)
        if not data.strip():
            continue
        try:
            values = decode(data)
        except DataError as error:
            yield number, error.at(str(file), number)
            continue
        if not isinstance(values, dict):
            yield number, DataError("E05", "row", "expected an object. Write one object a row.", str(file), number)
        elif values and all(isinstance(value, dict) for value in values.values()):  # rows by their id
            yield from enumerate(values.values())
        elif file.suffix == ".json" and len(values) == 1 and is_list_of_objects(only := next(iter(values.values()))):
            yield from enumerate(only)
        else:
            yield number, values


def is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)


READERS = {".tsv": read_table, ".csv": read_table, ".parquet": read_parquet, ".json": read_json, ".jsonl": read_json}
