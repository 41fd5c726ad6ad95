"""The file of single items beside a result file: FILE.items.jsonl beside FILE.json, one JSON line an item."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from latent_reason.data.errors import DataError
from latent_reason.data.jsonl import decode, lines, to_line
from latent_reason.files import atomic_write_text


def items_path(out: str | Path) -> Path:
    """FILE.items.jsonl of FILE.json."""
    return Path(out).with_suffix(".items.jsonl")


def write_items(path: Path, items: Iterable[dict]) -> None:
    atomic_write_text(path, "".join(to_line(item) + "\n" for item in items))


def read_items(out: str | Path) -> list[dict]:
    """The items of the result file ``out``.

    Raises:
        FileNotFoundError: the file of single items is missing.
        DataError: a line is no JSON object; names file and line.
    """
    path = items_path(out)
    if not path.is_file():
        raise FileNotFoundError(
            f"'{path}' does not exist: '{out}' has no single items. Evaluate again, or copy both files of the run."
        )
    found = []
    for number, line in lines(path):
        try:
            item = decode(line)
        except DataError as error:
            raise error.at(str(path), number) from None
        if not isinstance(item, dict):
            raise DataError("E05", "line", "expected an object. Evaluate again.", str(path), number)
        found.append(item)
    return found
