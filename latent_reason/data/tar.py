"""Tar shards: ``KEY.json`` of every item with its pictures beside it, ``KEY.p0.png`` (inputs) and ``KEY.s0.png``.

Read by offset and never unpacked, so no name in a shard is ever a path on this disk. What is neither a plain file nor a
folder is an error; extended headers are passed over.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .errors import DataError
from .jsonl import LINE_BYTES
from .pictures import Limits
from .rows import Raw

BLOCK = tarfile.BLOCKSIZE
NAME = re.compile(r"([\w-]{1,64})\.(json|[\w-]{1,32}\.(?:png|jpe?g|webp))", re.IGNORECASE)
PLAIN, PASSED = {tarfile.REGTYPE, tarfile.AREGTYPE}, {tarfile.DIRTYPE, tarfile.XHDTYPE, tarfile.XGLTYPE}
Member = tuple[int, int]  # where it begins in the shard, and its bytes


class TarShard:
    """The items of a shard, any of them at once. Opening it reads the headers alone."""

    def __init__(self, file: Path, limits: Limits | None = None):
        self.file, self.limits = file, limits or Limits()
        self._items: dict[str, dict[str, Member] | DataError] = {}
        with open(file, "rb") as handle:
            self._scan(handle)
        self._keys = list(self._items)

    def __len__(self) -> int:
        return len(self._keys)

    def order(self, random: np.random.Generator | None = None) -> list[int]:
        """The numbers of all items, as they stand or as ``random`` has it."""
        return list(range(len(self))) if random is None else random.permutation(len(self)).tolist()

    def item(self, number: int) -> Raw:
        key = self._keys[number]
        members = self._items[key]
        if isinstance(members, DataError):
            return Raw(number, members, sealed="")
        if "json" not in members:
            return Raw(
                number,
                DataError("E21", "", f"'{key}.json' is not in the shard, only its pictures. Pack the set again."),
                sealed="",
            )
        return Raw(number, self._read(members["json"], LINE_BYTES), partial(self._picture, members), f"{key}.")

    def _picture(self, members: dict[str, Member], name: str) -> bytes | None:
        return self._read(members[name], self.limits.bytes) if name in members and name != "json" else None

    def _read(self, member: Member, most: int) -> bytes:
        start, size = member
        with open(self.file, "rb") as handle:
            handle.seek(start)
            return handle.read(min(size, most + 1))

    def _scan(self, handle: BinaryIO) -> None:
        """Notes where every member stands; what is wrong with one becomes an item of its own."""
        size, at = handle.seek(0, 2), 0
        while at < size:
            handle.seek(at)
            try:
                head = tarfile.TarInfo.frombuf(handle.read(BLOCK), "utf-8", "surrogateescape")
            except tarfile.EOFHeaderError:
                return
            except (tarfile.HeaderError, ValueError):
                self._wrong(
                    at, DataError("E22", "", f"no tar header at byte {at}: the shard is cut or damaged. Copy it again.")
                )
                return
            name, at = head.name.removeprefix("./"), at + BLOCK
            shown = repr(name[:80])
            if head.size < 0:
                self._wrong(
                    at, DataError("E22", "", f"{shown} has a size below 0: the shard is damaged. Copy it again.")
                )
                return
            if at + head.size > size:
                self._wrong(at, DataError("E22", "", f"ends inside {shown}: the shard is cut. Copy it again."))
                return
            if head.type in PLAIN:
                self._note(name, shown, (at, head.size))
            elif head.type not in PASSED:
                self._wrong(
                    at, DataError("E21", "", f"{shown} is a link or another thing that is no plain file. Leave it out.")
                )
            at += -(-head.size // BLOCK) * BLOCK
        self._wrong(at, DataError("E22", "", "has no end: the shard is cut. Copy it again."))

    def _note(self, name: str, shown: str, member: Member) -> None:
        named = NAME.fullmatch(name)
        if not named:
            self._wrong(
                member[0],
                DataError(
                    "E21", "", f"{shown} is not named KEY.json or KEY.NAME.png, with no dot in the key. Rename it."
                ),
            )
            return
        members = self._items.setdefault(named[1], {})
        if named[2] in members:
            self._wrong(member[0], DataError("E21", "", f"{shown} is there twice. Keep one."))
        members[named[2]] = member

    def _wrong(self, at: int, error: DataError) -> None:
        self._items[f"{at}."] = error  # no key holds a dot


class TarWriter:
    """A shard being written: the same items give the same bytes."""

    suffix = ".tar"

    def __init__(self, file: Path):
        self.items, self.bytes = 0, 0
        self._handle = open(file, "xb")
        self._tar = tarfile.open(fileobj=self._handle, mode="w", format=tarfile.USTAR_FORMAT)

    def add(self, columns: dict, line: str, names: Sequence[str], pictures: Sequence[bytes]) -> None:
        """An item of the record ``line`` and pictures under the names that it gives them."""
        files = {"json": line.encode(), **dict(zip(names, pictures, strict=True))}
        for name in sorted(files):
            info = tarfile.TarInfo(f"{self.items:09}.{name}")  # of time 0, of nobody, for all to read
            info.size = len(files[name])
            self._tar.addfile(info, BytesIO(files[name]))
        self.items, self.bytes = self.items + 1, self._handle.tell()

    def close(self) -> None:
        self._tar.close()
        self._handle.close()

    @staticmethod
    def name(kind: str, number: int, place: int) -> str:
        """What a picture is called in a record, by its kind (``p``: input, ``s``: sketch) and place among those."""
        return f"{kind}{number}.png"
