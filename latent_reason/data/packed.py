"""Packed sets: native records with their pictures in shards, tar or parquet, and ``dataset.json`` that lists them.

Shards are named by their split. The same traces give the same bytes (parquet: with the same pyarrow). ``native.read``
reads a folder of shards like any other, after it has compared every shard with the list.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from hashlib import file_digest
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..errors import did_you_mean
from ..files import atomic_folder, atomic_write_json
from ..trace import Image, Sketch, Trace
from .errors import DataError
from .jsonl import LINE_BYTES, decode
from .parquet import ParquetShard, ParquetWriter
from .pictures import Limits, Png, to_rgb
from .record import SCHEMA
from .rows import claim
from .tar import TarShard, TarWriter

MANIFEST = "dataset.json"
SHARDS = {".tar": TarShard, ".parquet": ParquetShard}
WRITERS = {"tar": TarWriter, "parquet": ParquetWriter}
SHARD_ITEMS, SHARD_BYTES = 10_000, 256 * 2**20
HELD = ("tasks", "seeds", "licences")


def open_shard(file: Path, limits: Limits | None = None) -> TarShard | ParquetShard:
    """A shard, whose items are ``shard.item(number)``. Raises DataError for a file that is none."""
    return SHARDS[file.suffix](file, limits)


# -- the list ----------------------------------------------------------------------------------------------------------
def manifest(folder: Path) -> dict[str, dict]:
    """The shards that the ``dataset.json`` of a folder lists, by name; none where there is no such list.

    Raises DataError (E22) for a list that is damaged, or names anything but shards of this folder.
    """
    try:
        with open(folder / MANIFEST, "rb") as file:
            found = decode(file.read(LINE_BYTES + 1))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except DataError as error:
        raise DataError("E22", error.field, f"{error.what} Or pack the set again.", str(folder / MANIFEST)) from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        return {}  # a list of somebody else
    listed = found.get("shards")
    good = isinstance(listed, list) and all(
        isinstance(one, dict)
        and isinstance(one.get("sha256"), str)
        and isinstance(one.get("items"), int)
        and isinstance(name := one.get("name"), str)
        and re.fullmatch(r"[\w-]+\.(tar|parquet)", name)
        for one in listed
    )
    if not good:
        raise DataError(
            "E22",
            "shards",
            "expected a list of {name, items, sha256}. Copy the list again, or pack the set again.",
            str(folder / MANIFEST),
        )
    return {one["name"]: one for one in listed}


def of_split(folder: Path, split: str) -> list[Path]:
    """The shards of a folder that hold a split, by the list or by their names; none of a folder that is not packed."""
    listed = manifest(folder)
    names = listed or [file.name for file in folder.glob("*") if file.suffix in SHARDS]
    return sorted(
        folder / name
        for name in names
        if re.fullmatch(rf"{re.escape(split)}-\d{{5}}(-of-\d{{5}})?\.(tar|parquet)", name)
    )


def damage(file: Path, listed: dict[str, dict]) -> DataError | None:
    """What is wrong with a shard as a file, by the list of its folder."""

    def wrong(code: str, what: str) -> DataError:
        return DataError(code, "", what, str(file))

    if not file.is_file():
        return wrong("E22", f"listed in {MANIFEST} and not there. Copy it again.")
    if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(file.parent)):
        return wrong("E08", "leaves the data folder by a link. Move the file inside it.")
    if listed and file.name not in listed:
        return wrong("E22", f"is not listed in {MANIFEST}. Move it away, or pack the set again.")
    if listed:
        with open(file, "rb") as handle:
            if file_digest(handle, "sha256").hexdigest() != listed[file.name]["sha256"]:
                return wrong("E22", f"SHA-256 differs from {MANIFEST}. Copy it again.")
    return None


# -- packing -----------------------------------------------------------------------------------------------------------
def write(
    traces: Iterable[Trace],
    folder: str | Path,
    form: str,
    shard_items: int = SHARD_ITEMS,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Packs ``traces`` into a new ``folder`` of ``tar`` or ``parquet`` shards, whole or not at all; returns the folder.

    Raises ValueError for another form; FileExistsError where the folder is not empty; DataError for a trace that a
    reader would refuse; OSError (ENOSPC) on a full disk.
    """
    if form not in WRITERS:
        raise ValueError(f"no packed form '{form}'. {did_you_mean(form, WRITERS)}")
    folder, seen = Path(folder), {}
    with atomic_folder(folder) as unfinished:
        packer = _Packer(unfinished, form, shard_items, shard_bytes)
        try:
            for number, trace in enumerate(traces):
                try:
                    packer.add(trace)
                    claim(trace.id, f"trace {number}", seen)
                except DataError as error:
                    raise error.at(str(folder), number, trace.id) from None
        finally:
            packer.close()
        if not seen:
            raise DataError("E25", "", "there are no traces to pack.", str(folder))
        packer.finish()
    return folder


class _Packer:
    """The shards of a folder, one open for each split."""

    def __init__(self, folder: Path, form: str, shard_items: int, shard_bytes: int):
        self.folder, self.form, self.most = folder, form, (shard_items, shard_bytes)
        self.open: dict[str, TarWriter | ParquetWriter] = {}
        self.shards: dict[str, list[int]] = {}  # split -> items of each of its shards
        self.counts: Counter[tuple] = Counter()
        self.held: dict[str, set] = {name: set() for name in HELD}
        self._png = Png()

    def add(self, trace: Trace) -> None:
        from .native import encode  # which reads what is written here

        names: list[str] = []
        parts: list[Image | Sketch] = []

        def named(part: Image | Sketch) -> str:
            kind = "p" if isinstance(part, Image) else "s"
            parts.append(part)
            names.append(WRITERS[self.form].name(kind, sum(type(p) is type(part) for p in parts) - 1, len(parts) - 1))
            return names[-1]

        line = encode(trace, named)
        pictures = [self._png(to_rgb(part.image)) for part in parts]
        columns = {name: getattr(trace, name) for name in ("id", "task", "split", "level", "mode", "answer", "checker")}
        self._writer(trace.split).add(columns, line, names, pictures)
        self.counts[trace.split, trace.task, trace.mode, trace.level] += 1
        version = trace.meta.get("task_version")
        self.held["tasks"].add(trace.task if version is None else f"{trace.task} {version}")
        self.held["seeds"].add(trace.meta.get("seed"))
        self.held["licences"].add(trace.meta.get("licence"))

    def _writer(self, split: str) -> TarWriter | ParquetWriter:
        writer = self.open.get(split)
        if writer is not None and writer.items < self.most[0] and writer.bytes < self.most[1]:
            return writer
        if writer is not None:
            self._close(split)
        number = len(self.shards.setdefault(split, []))
        self.open[split] = WRITERS[self.form](self.folder / self._name(split, number))
        return self.open[split]

    def _name(self, split: str, number: int, count: int | None = None) -> str:
        of = f"-of-{count:05}" if self.form == "parquet" and count is not None else ""
        return f"{split}-{number:05}{of}.{self.form}"

    def _close(self, split: str) -> None:
        writer = self.open.pop(split)
        self.shards[split].append(writer.items)
        writer.close()

    def close(self) -> None:
        for split in list(self.open):
            self._close(split)

    def finish(self) -> None:
        """Gives shards their last names and writes the list."""
        listed = []
        for split, sizes in sorted(self.shards.items()):
            for number, items in enumerate(sizes):
                file = self.folder / self._name(split, number, len(sizes))
                (self.folder / self._name(split, number)).rename(file)
                with open(file, "rb") as handle:
                    listed.append(
                        {
                            "name": file.name,
                            "split": split,
                            "items": items,
                            "bytes": file.stat().st_size,
                            "sha256": file_digest(handle, "sha256").hexdigest(),
                        }
                    )
        counts = [
            dict(zip(("split", "task", "mode", "level", "items"), (*key, count), strict=True))
            for key, count in sorted(self.counts.items(), key=str)
        ]
        held = {
            name: sorted({one for one in found if isinstance(one, str | int)}, key=str)
            for name, found in self.held.items()
        }
        atomic_write_json(
            self.folder / MANIFEST,
            {"schema": SCHEMA, "form": self.form, "package": _package(), "counts": counts, **held, "shards": listed},
        )


def _package() -> str:
    try:
        return f"latent_reason {version('latent_reason')}"
    except PackageNotFoundError:
        return "latent_reason"
