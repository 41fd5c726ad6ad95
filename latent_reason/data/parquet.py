"""Parquet: our own shards, and the tables of others, whose pictures are structs {bytes, path} or plain bytes.

Needs pyarrow (the extra ``data``). A struct of bytes and path is how the ``datasets`` library stores a picture, which
shows our shards with their pictures too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import pip_install
from .errors import DataError
from .jsonl import LINE_BYTES
from .pictures import Limits
from .rows import Raw

GROUP_ROWS = 256
GROUP_BYTES = 4 * 2**30  # of a row group, unpacked
ROW_BYTES = 512 * 2**20
TEXTS = ("id", "task", "split", "mode", "answer", "checker", "record")
#: how the ``datasets`` library is told what the columns are
FEATURES = {
    "images": {"feature": {"_type": "Image"}, "_type": "List"},
    "level": {"dtype": "int32", "_type": "Value"},
    **{name: {"dtype": "string", "_type": "Value"} for name in TEXTS},
}


def arrow():
    """The module pyarrow.parquet. Raises ValueError where it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise ValueError(
            f"parquet needs pyarrow, which is not installed. Install it with: {pip_install('data')}"
        ) from None
    return pyarrow.parquet


def opened(file: Path):
    """A parquet file, ready to be read. Raises DataError (E20) for what is none, or would not fit into memory."""
    parquet = arrow()
    try:
        found = parquet.ParquetFile(file, pre_buffer=False)
    except Exception as error:  # pyarrow raises ArrowInvalid, ArrowNotImplementedError, OSError
        raise DataError("E20", "", f"cannot be read as parquet ({_said(error)}). Copy it again.", str(file)) from None
    for group in range(found.num_row_groups):
        size = found.metadata.row_group(group).total_byte_size
        if size > GROUP_BYTES:
            found.close()
            raise DataError(
                "E20",
                "",
                f"row group {group} holds {size / 2**30:,.1f} GiB, at most "
                f"{GROUP_BYTES / 2**30:,.0f} GiB are read at once. Write smaller row groups.",
                str(file),
            )
    return found


def one_by_one(table, most: int | None = None, **which) -> Iterator[dict]:
    """The rows of an opened file, each unpacked alone: a value that stands once on disk may be meant by every row.

    Raises DataError (E20) for a row that is too large, for rows of more than ``most`` bytes together, and for what
    cannot be read.
    """
    held = 0
    try:
        for batch in table.iter_batches(batch_size=1, use_threads=False, **which):
            held += batch.nbytes
            for size, limit, what in ((batch.nbytes, ROW_BYTES, "a row"), (held, most, "the rows of a group")):
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
    except (OSError, ValueError, NotImplementedError, MemoryError) as error:  # what pyarrow raises are such
        raise DataError("E20", "", f"cannot be read ({_said(error)}). Copy the file again.") from None


# -- tables of others --------------------------------------------------------------------------------------------------
def rows(file: Path) -> Iterator[Raw]:
    """The rows of a table as JSON would hold them, numbered from 0, a path or a name in the place of every picture."""
    return _rows(opened(file))


def _rows(table) -> Iterator[Raw]:
    number = 0
    with table:
        try:
            for row in one_by_one(table):
                inside: dict[str, bytes] = {}
                yield Raw(number, _named(row, "", inside), inside.get)
                number += 1
        except DataError as error:
            yield Raw(number, error)


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _named(value: Any, at: str, inside: dict[str, bytes]) -> Any:
    """``value`` with the name ``at`` in the place of pictures, whose bytes go to ``inside``."""
    if isinstance(value, dict) and value.keys() == {"bytes", "path"}:
        value = value["path"] if value["bytes"] is None else value["bytes"]
    if isinstance(value, bytes):
        inside[at] = value
        return at
    if isinstance(value, dict):
        return {key: _named(one, f"{at}.{key}" if at else key, inside) for key, one in value.items()}
    if isinstance(value, list | tuple):  # the pairs of a map are tuples
        return [_named(one, f"{at}[{i}]", inside) for i, one in enumerate(value)]
    return value if value is None or isinstance(value, str | int | float) else str(value)  # times, decimals


# -- our own shards ----------------------------------------------------------------------------------------------------
class ParquetShard:
    """The items of a shard, any of them at once; one row group is kept in memory.

    Raises DataError (E20) for a file without the columns ``record`` and ``images``.
    """

    def __init__(self, file: Path, limits: Limits | None = None):
        self._table = opened(file)
        schema = self._table.schema_arrow
        _check(file, schema, "record", "string", lambda kind: str(kind) in ("string", "large_string"))
        _check(file, schema, "images", "list of {bytes, path}", _holds_pictures)
        sizes = [self._table.metadata.row_group(i).num_rows for i in range(self._table.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self._kept: tuple[int, list[dict]] = -1, []

    def __len__(self) -> int:
        return int(self._starts[-1])

    def order(self, random: np.random.Generator | None = None) -> list[int]:
        """The numbers of all items, as they stand or as ``random`` has it: group after group, rows within a group."""
        groups = [np.arange(*ends) for ends in zip(self._starts, self._starts[1:], strict=False)]
        if random is not None:
            groups = [random.permutation(groups[i]) for i in random.permutation(len(groups))]
        return [int(number) for group in groups for number in group]

    def item(self, number: int) -> Raw:
        group = int(np.searchsorted(self._starts, number, side="right")) - 1
        if group != self._kept[0]:
            try:
                self._kept = (
                    group,
                    list(one_by_one(self._table, GROUP_BYTES, row_groups=[group], columns=["record", "images"])),
                )
            except DataError as error:
                return Raw(number, error, sealed="")
        row = self._kept[1][number - int(self._starts[group])]
        if row["record"] is None:
            return Raw(number, DataError("E20", "record", "null. Pack the set again."), sealed="")
        pictures = {f"images/{i}": one and one["bytes"] for i, one in enumerate(row["images"] or [])}
        if any(data is None for data in pictures.values()):
            return Raw(
                number, DataError("E20", "images", "the bytes of a picture are null. Pack the set again."), sealed=""
            )
        return Raw(number, row["record"][: LINE_BYTES + 1].encode(), pictures.get, "")


def _check(file: Path, schema, column: str, expected: str, fits) -> None:
    where = schema.get_field_index(column)
    found = "missing" if where < 0 else str(schema.field(where).type)
    if where < 0 or not fits(schema.field(where).type):
        raise DataError(
            "E20",
            "",
            f"column '{column}' is {found}, expected {expected}. Tables of others are read by data convert FORMAT.",
            str(file),
        )


def _holds_pictures(kind) -> bool:
    inner = getattr(kind, "value_type", None)
    names = {inner.field(i).name: str(inner.field(i).type) for i in range(getattr(inner, "num_fields", 0))}
    return names.get("bytes") in ("binary", "large_binary")


class ParquetWriter:
    """A shard being written, a row group at a time. The same items give the same bytes with the same pyarrow."""

    suffix = ".parquet"

    def __init__(self, file: Path):
        parquet, self.items, self.bytes, self._waiting = arrow(), 0, 0, []
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
        """A row of the record ``line``, its pictures in order, and ``columns`` to look at."""
        shown = {name: columns[name] for name in TEXTS if name != "record"}
        level = columns["level"]
        self._waiting.append(
            {
                **shown,
                "record": line,
                "level": level if abs(level or 0) < 2**31 else None,
                "images": [{"bytes": data, "path": None} for data in pictures],
            }
        )
        self.items, self.bytes = self.items + 1, self.bytes + len(line) + sum(map(len, pictures))
        if len(self._waiting) == GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        if self._waiting:
            self._writer.write_table(pyarrow.Table.from_pylist(self._waiting, self._schema))
        self._waiting = []

    def close(self) -> None:
        self._flush()
        self._writer.close()

    @staticmethod
    def name(kind: str, number: int, place: int) -> str:
        """What a picture is called in a record, by its place among all of them."""
        return f"images/{place}"
