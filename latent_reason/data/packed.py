"""Packed data sets: native records and images in tar or parquet shards, listed in the manifest ``dataset.json``.

Shard names start with the split. Equal traces give equal bytes (parquet: with the same pyarrow). ``native.read`` reads
a folder of shards and first compares every shard with the manifest.
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
from .pictures import Limits, Png
from .pictures import encode as encode_picture
from .places import Places
from .record import SCHEMA
from .rows import register_id
from .tar import TarShard, TarWriter

MANIFEST = "dataset.json"
SHARDS: dict[str, type[TarShard | ParquetShard]] = {".tar": TarShard, ".parquet": ParquetShard}
WRITERS: dict[str, type[TarWriter | ParquetWriter]] = {"tar": TarWriter, "parquet": ParquetWriter}
SHARD_ITEMS, SHARD_BYTES = 10_000, 256 * 2**20
LINKED = "leaves the data folder by a link. Move the file inside it, or name its folder: --image-root."
NOT_PLAIN = "is no plain file, but a folder, pipe, device or lost link. Remove it."
PROVENANCE_KEYS = ("tasks", "seeds", "licences")  # keys of the manifest


def open_shard(file: Path, limits: Limits | None = None) -> TarShard | ParquetShard:
    """Open a shard; ``shard.item(number)`` reads an item. Raises DataError if the file is not a shard."""
    return SHARDS[file.suffix](file, limits)


# -- manifest ----------------------------------------------------------------------------------------------------------
def manifest(folder: Path) -> dict[str, dict]:
    """The shard entries of ``dataset.json`` by name; empty if the folder has no manifest.

    Raises DataError (E22) for a damaged manifest or one that lists other files than shards of this folder.
    """
    if not (folder / MANIFEST).exists():
        return {}
    if not (folder / MANIFEST).is_file():  # to open a pipe would wait for ever
        raise DataError("E22", "", NOT_PLAIN, str(folder / MANIFEST))
    try:
        with open(folder / MANIFEST, "rb") as file:
            content = decode(file.read(LINE_BYTES + 1))
    except DataError as error:
        raise DataError("E22", error.field, f"{error.what} Or pack the set again.", str(folder / MANIFEST)) from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        return {}  # a dataset.json of another program
    listed = content.get("shards")
    is_valid = isinstance(listed, list) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("sha256"), str)
        and isinstance(entry.get("items"), int)
        and isinstance(name := entry.get("name"), str)
        and re.fullmatch(r"[\w-]+\.(tar|parquet)", name)
        for entry in listed
    )
    if not is_valid:
        raise DataError(
            "E22",
            "shards",
            "expected a list of {name, items, sha256}. Copy the list again, or pack the set again.",
            str(folder / MANIFEST),
        )
    return {entry["name"]: entry for entry in listed}


def of_split(folder: Path, split: str) -> list[Path]:
    """The shards of a split, by the manifest or by their names; empty if the folder is not packed."""
    listed = manifest(folder)
    names = listed or [file.name for file in folder.glob("*") if file.suffix in SHARDS]
    return sorted(
        folder / name
        for name in names
        if re.fullmatch(rf"{re.escape(split)}-\d{{5}}(-of-\d{{5}})?\.(tar|parquet)", name)
    )


def find_damage(file: Path, listed: dict[str, dict], named: Iterable[Path] = ()) -> DataError | None:
    """The error of a shard file compared with the manifest of its folder; None if it is intact. A link may lead to the
    ``named`` folders."""

    def error(code: str, what: str) -> DataError:
        return DataError(code, "", what, str(file))

    if not os.path.lexists(file):
        return error("E22", f"listed in {MANIFEST} but missing. Copy it again.")
    if not Places(file.parent, named).contains(file):
        return error("E08", LINKED)
    if not file.is_file():
        return error("E07", NOT_PLAIN)
    if listed and file.name not in listed:
        return error("E22", f"is not listed in {MANIFEST}. Move it away, or pack the set again.")
    if listed:
        with open(file, "rb") as handle:
            if file_digest(handle, "sha256").hexdigest() != listed[file.name]["sha256"]:
                return error("E22", f"SHA-256 differs from {MANIFEST}. Copy it again.")
    return None


# -- packing -----------------------------------------------------------------------------------------------------------
def write(
    traces: Iterable[Trace],
    folder: str | Path,
    form: str,
    shard_items: int = SHARD_ITEMS,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Pack ``traces`` atomically into ``tar`` or ``parquet`` shards in a new ``folder``; returns the folder.

    Raises:
        ValueError: unknown ``form``.
        FileExistsError: the folder is not empty.
        DataError: a reader would reject a trace.
        OSError: the disk is full (ENOSPC).
    """
    if form not in WRITERS:
        raise ValueError(f"no packed form '{form}'. {did_you_mean(form, WRITERS)}")
    folder = Path(folder)
    ids: dict[str, str] = {}
    with atomic_folder(folder) as unfinished:
        packer = _Packer(unfinished, form, shard_items, shard_bytes)
        try:
            for number, trace in enumerate(traces):
                try:
                    packer.add(trace)
                    register_id(trace.id, f"trace {number}", ids)
                except DataError as error:
                    raise error.at(str(folder), number, trace.id) from None
        finally:
            packer.close()
        if not ids:
            raise DataError("E25", "", "there are no traces to pack. Pass at least one.", str(folder))
        packer.finish()
    return folder


class _Packer:
    """Writes the shards of a folder; one shard per split is open."""

    def __init__(self, folder: Path, form: str, shard_items: int, shard_bytes: int):
        self.folder, self.form, self.limits = folder, form, (shard_items, shard_bytes)
        self.open: dict[str, TarWriter | ParquetWriter] = {}
        self.shards: dict[str, list[int]] = {}  # split -> number of items in each shard
        self.counts: Counter[tuple] = Counter()
        self.provenance: dict[str, set] = {name: set() for name in PROVENANCE_KEYS}
        self._png = Png()

    def add(self, trace: Trace) -> None:
        from .native import encode  # circular at module level: native imports this module

        names: list[str] = []
        parts: list[Image | Sketch] = []
        pictures: list[bytes] = []

        def add_picture(part: Image | Sketch) -> str:
            data, suffix = encode_picture(part.image, self._png)
            number = sum(type(p) is type(part) for p in parts)
            kind = "p" if isinstance(part, Image) else "s"
            names.append(WRITERS[self.form].name(kind, number, len(parts), suffix))
            parts.append(part)
            pictures.append(data)
            return names[-1]

        line = encode(trace, add_picture)
        columns = {name: getattr(trace, name) for name in ("id", "task", "split", "level", "mode", "answer", "checker")}
        self._writer(trace.split).add(columns, line, names, pictures)
        self.counts[trace.split, trace.task, trace.mode, trace.level] += 1
        version = trace.meta.get("task_version")
        self.provenance["tasks"].add(trace.task if version is None else f"{trace.task} {version}")
        self.provenance["seeds"].add(trace.meta.get("seed"))
        self.provenance["licences"].add(trace.meta.get("licence"))

    def _writer(self, split: str) -> TarWriter | ParquetWriter:
        writer = self.open.get(split)
        if writer is not None and writer.items < self.limits[0] and writer.bytes < self.limits[1]:
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
        """Rename the shards to their final names and write the manifest."""
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
        provenance = {
            name: sorted({value for value in values if isinstance(value, str | int)}, key=str)
            for name, values in self.provenance.items()
        }
        atomic_write_json(
            self.folder / MANIFEST,
            {
                "schema": SCHEMA,
                "form": self.form,
                "package": _package(),
                "counts": counts,
                **provenance,
                "shards": listed,
            },
        )


def _package() -> str:
    try:
        return f"latent_reason {version('latent_reason')}"
    except PackageNotFoundError:
        return "latent_reason"
