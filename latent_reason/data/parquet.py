"""Parquet: native shards, and tables of other projects, also in arrow files, whose images are structs {bytes, path} or plain bytes.

Needs pyarrow (the extra ``data``). The ``datasets`` library stores images as structs {bytes, path}, so it also displays
the images of native shards.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import pip_install
from .errors import DataError
from .jsonl import LINE_BYTES
from .pictures import Limits
from .record import StoredName
from .rows import Raw

GROUP_ROWS = 256
GROUP_BYTES = 4 * 2**30  # maximum size of a decompressed row group
BUFFER_BYTES = 2**20  # of a column: a row group is not read at once
ROW_BYTES = 512 * 2**20
TEXTS = ("id", "task", "split", "mode", "answer", "checker", "record")
#: column types for the ``datasets`` library
FEATURES = {
    "images": {"feature": {"_type": "Image"}, "_type": "List"},
    "level": {"dtype": "int32", "_type": "Value"},
    **{name: {"dtype": "string", "_type": "Value"} for name in TEXTS},
}


def arrow():
    """The module pyarrow.parquet. Raises ValueError if it is not installed."""
    try:
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise ValueError(
            f"parquet needs pyarrow, which is not installed. Install it with: {pip_install('data')}"
        ) from None
    return pyarrow.parquet


def opened(file: Path):
    """Open a parquet file. Raises DataError (E20) if it is not parquet or a row group is too large for memory."""
    parquet = arrow()
    try:
        table = parquet.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER_BYTES)
    except Exception as error:  # pyarrow raises ArrowInvalid, ArrowNotImplementedError, OSError
        raise DataError(
            "E20", "", f"cannot be read as parquet ({_short_message(error)}). Copy it again.", str(file)
        ) from None
    for group in range(table.num_row_groups):
        size = table.metadata.row_group(group).total_byte_size
        if size > GROUP_BYTES:
            table.close()
            raise DataError(
                "E20",
                "",
                f"row group {group} holds {size / 2**30:,.1f} GiB, at most "
                f"{GROUP_BYTES / 2**30:,.0f} GiB are read at once. Write smaller row groups.",
                str(file),
            )
    return table


def one_by_one(batches: Iterable, most: int | None = None) -> Iterator[dict]:
    """Yield the rows of record batches of one row: a small file may repeat one large value in all rows.

    Raises DataError (E20) for a row that is too large, for rows of more than ``most`` bytes in total and for unreadable
    data.
    """
    total = 0
    try:
        for batch in batches:
            total += batch.nbytes
            for size, limit, what in ((batch.nbytes, ROW_BYTES, "a row"), (total, most, "the rows of a group")):
                if limit and size > limit:
                    raise DataError(
                        "E20",
                        "",
                        f"{what} of {size / 2**20:,.0f} MiB, at most {limit / 2**20:,.0f} MiB "
                        "are read. Write smaller ones.",
                    )
            yield from batch.to_pylist()
    except DataError:
        raise
    except (OSError, ValueError, NotImplementedError, MemoryError) as error:  # pyarrow errors are subclasses of these
        raise DataError("E20", "", f"cannot be read ({_short_message(error)}). Copy the file again.") from None


# -- other tables -----------------------------------------------------------------------------------------------------
def rows(file: Path) -> Iterator[Raw]:
    """Yield the rows of a table as JSON values, numbered from 0. Images are replaced by a path or a name."""
    return _rows(table := opened(file), row_batches(table))


def arrow_rows(file: Path) -> Iterator[Raw]:
    """Yield the rows of an arrow file, a stream as ``save_to_disk`` of the datasets library writes it or a file, as
    ``rows`` does. Raises DataError (E20) if it is neither."""
    arrow()
    import pyarrow

    source = pyarrow.OSFile(str(file))
    try:
        if source.read(6) == b"ARROW1":
            table = pyarrow.ipc.open_file(source)
            batches = (table.get_batch(i) for i in range(table.num_record_batches))
        else:
            source.seek(0)
            batches = iter(pyarrow.ipc.open_stream(source))
    except (OSError, ValueError) as error:
        raise DataError(
            "E20", "", f"cannot be read as arrow ({_short_message(error)}). Copy it again.", str(file)
        ) from None
    return _rows(source, (batch.slice(i, 1) for batch in batches for i in range(batch.num_rows)))


def row_batches(table, **which) -> Iterator:
    """The rows of an opened parquet file as record batches of one row. ``which`` names row groups and columns."""
    return table.iter_batches(batch_size=1, use_threads=False, **which)


def _rows(file, batches: Iterable) -> Iterator[Raw]:
    number = 0
    with file:
        try:
            for row in one_by_one(batches):
                images: dict[str, bytes] = {}
                yield Raw(number, _replace_images(row, "", images), images.get)
                number += 1
        except DataError as error:
            yield Raw(number, error)


def _short_message(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _replace_images(value: Any, at: str, images: dict[str, bytes]) -> Any:
    """``value`` with images replaced by their name ``at``, and NaN, which pandas writes for a missing number, by None.
    The image bytes are added to ``images``."""
    if isinstance(value, dict) and value.keys() == {"bytes", "path"}:
        value = value["bytes"] or value["path"]
    if isinstance(value, bytes):
        images[at] = value
        return StoredName(at)
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, dict):
        return {key: _replace_images(child, f"{at}.{key}" if at else key, images) for key, child in value.items()}
    if isinstance(value, list | tuple):  # entries of a map are tuples
        return [_replace_images(child, f"{at}[{i}]", images) for i, child in enumerate(value)]
    return (
        value if value is None or isinstance(value, str | int | float) else str(value)
    )  # for example times and decimals


# -- native shards -----------------------------------------------------------------------------------------------------
class ParquetShard:
    """Random access to the items of a shard; one row group is kept in memory.

    Raises DataError (E20) if the columns ``record`` and ``images`` are missing.
    """

    def __init__(self, file: Path, limits: Limits | None = None):
        self._table = opened(file)
        schema = self._table.schema_arrow
        _check(file, schema, "record", "string", lambda kind: str(kind) in ("string", "large_string"))
        _check(file, schema, "images", "list of {bytes, path}", _holds_pictures)
        sizes = [self._table.metadata.row_group(i).num_rows for i in range(self._table.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self._cached_group: tuple[int, list[dict]] = -1, []

    def __len__(self) -> int:
        return int(self._starts[-1])

    def order(self, random: np.random.Generator | None = None) -> list[int]:
        """The numbers of all items, in file order or shuffled: first the row groups, then the rows of each group."""
        groups = [np.arange(*ends) for ends in zip(self._starts, self._starts[1:], strict=False)]
        if random is not None:
            groups = [random.permutation(groups[i]) for i in random.permutation(len(groups))]
        return [int(number) for group in groups for number in group]

    def item(self, number: int) -> Raw:
        """The raw item ``number``."""
        group = int(np.searchsorted(self._starts, number, side="right")) - 1
        if group != self._cached_group[0]:
            try:
                self._cached_group = (
                    group,
                    list(
                        one_by_one(
                            row_batches(self._table, row_groups=[group], columns=["record", "images"]), GROUP_BYTES
                        )
                    ),
                )
            except DataError as error:
                return Raw(number, error, name_prefix="")
        row = self._cached_group[1][number - int(self._starts[group])]
        if row["record"] is None:
            return Raw(number, DataError("E20", "record", "null. Pack the set again."), name_prefix="")
        pictures = {f"images/{i}": image and image["bytes"] for i, image in enumerate(row["images"] or [])}
        if any(data is None for data in pictures.values()):
            return Raw(
                number,
                DataError("E20", "images", "the bytes of an image are null. Pack the set again."),
                name_prefix="",
            )
        return Raw(number, row["record"][: LINE_BYTES + 1].encode(), pictures.get, "")


def _check(file: Path, schema, column: str, expected: str, fits) -> None:
    index = schema.get_field_index(column)
    actual = "missing" if index < 0 else str(schema.field(index).type)
    if index < 0 or not fits(schema.field(index).type):
        raise DataError(
            "E20",
            "",
            f"column '{column}' is {actual}, expected {expected}. Use data convert FORMAT for tables of other formats.",
            str(file),
        )


def _holds_pictures(kind) -> bool:
    inner = getattr(kind, "value_type", None)
    names = {inner.field(i).name: str(inner.field(i).type) for i in range(getattr(inner, "num_fields", 0))}
    return names.get("bytes") in ("binary", "large_binary")


class ParquetWriter:
    """Writes a shard by row groups. Equal items give equal bytes with the same pyarrow."""

    suffix = ".parquet"

    def __init__(self, file: Path):
        parquet, self.items, self.bytes = arrow(), 0, 0
        self._buffer: list[dict] = []
        import pyarrow

        picture = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        fields = [(name, pyarrow.string()) for name in TEXTS] + [
            ("level", pyarrow.int32()),
            ("images", pyarrow.list_(picture)),
        ]
        features = json.dumps({"info": {"features": FEATURES}}, sort_keys=True)
        self._schema = pyarrow.schema(fields, metadata={"huggingface": features})
        packed = {name: "zstd" for name in (*TEXTS, "level")}
        self._writer = parquet.ParquetWriter(
            file,
            self._schema,
            compression={**packed, "images.list.element.bytes": "none", "images.list.element.path": "zstd"},
            use_dictionary=False,
        )

    def add(self, columns: dict, line: str, names: Sequence[str], pictures: Sequence[bytes]) -> None:
        """Add a row: the record ``line``, its images in order, and ``columns`` for display."""
        texts = {name: columns[name] for name in TEXTS if name != "record"}
        level = columns["level"]
        self._buffer.append(
            {
                **texts,
                "record": line,
                "level": level if abs(level or 0) < 2**31 else None,
                "images": [{"bytes": data, "path": None} for data in pictures],
            }
        )
        self.items, self.bytes = self.items + 1, self.bytes + len(line) + sum(map(len, pictures))
        if len(self._buffer) == GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        if self._buffer:
            self._writer.write_table(pyarrow.Table.from_pylist(self._buffer, self._schema))
        self._buffer = []

    def close(self) -> None:
        self._flush()
        self._writer.close()

    @staticmethod
    def name(kind: str, number: int, place: int, suffix: str) -> str:
        """The name of an image in a record: its index among all images."""
        return f"images/{place}"
