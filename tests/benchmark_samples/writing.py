"""Writes the files of a benchmark: tables, lines, texts, pictures. Pictures tell their number by their grey."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pytest
from data_samples import picture


def png(number: int) -> bytes:
    held = BytesIO()
    picture(number).save(held, "PNG")
    return held.getvalue()


def b64(number: int) -> str:
    return base64.b64encode(png(number)).decode()


def stored(number: int) -> dict:
    """A picture as the Hub's parquet holds it."""
    return {"bytes": png(number), "path": None}


def table(file: Path, rows: list[dict]) -> None:
    """TSV or CSV, as its name says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), delimiter="\t" if file.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)


def parquet(file: Path, rows: list[dict]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    file.parent.mkdir(parents=True, exist_ok=True)
    write_table(pyarrow.Table.from_pylist(rows), file)


def lines(file: Path, rows: list[dict]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rows) if file.suffix == ".json" else "\n".join(map(json.dumps, rows))
    file.write_text(text, encoding="utf-8")


def texts(folder: Path, **files: str) -> None:
    """``name_of_folder__file="..."``: text files."""
    for name, text in files.items():
        file = folder / (name.replace("__", "/") + ".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def image(file: Path, number: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture(number).save(file)


WRITERS = {".tsv": table, ".csv": table, ".parquet": parquet, ".json": lines, ".jsonl": lines}


@dataclass(frozen=True)
class Sample:
    """A benchmark in one published layout.

    Args:
        layout: as the table in docs/evaluation.md names it.
        files: file -> rows.
        items: (id, task, type, checker, options, answer, greys of its pictures) of each item that is read.
        pictures: file -> grey.
        more: writes the rest of the folder.
    """

    name: str
    layout: str
    files: dict[str, list[dict]]
    items: list[tuple]
    pictures: dict[str, int] = field(default_factory=dict)
    more: Callable[[Path], None] | None = None

    def write(self, folder: Path) -> Path:
        for file, rows in self.files.items():
            WRITERS[Path(file).suffix](folder / file, rows)
        for file, grey in self.pictures.items():
            image(folder / file, grey)
        if self.more:
            self.more(folder)
        return folder


def by_id(file: str, key: str) -> Callable[[Path], None]:
    """Writes the rows of a JSON file again, as an object of rows by their id."""

    def rewrite(folder: Path) -> None:
        rows = json.loads((folder / file).read_text(encoding="utf-8"))
        (folder / file).write_text(json.dumps({row[key]: row for row in rows}), encoding="utf-8")

    return rewrite
