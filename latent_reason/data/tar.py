"""Tar shards: per item ``KEY.json``, its input images ``KEY.p0.png``, ... and its sketches ``KEY.s0.jpg``, ...

Shards of a WebDataset are read as rows. Shards are read by offset and never unpacked, so member names are never used as
paths on disk. Long names and names in other alphabets stand in headers of their own, of PAX or GNU. Members other than
plain files and folders are errors.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .errors import DataError
from .jsonl import LINE_BYTES, decode
from .pictures import Limits
from .record import StoredName
from .rows import Raw

BLOCK = tarfile.BLOCKSIZE
NAME = re.compile(r"([\w-]{1,64})\.(json|[\w-]{1,32}\.(?:png|jpe?g|webp))", re.IGNORECASE)
WEB_NAME = re.compile(r"((?:[^/]+/)*[^/.]+)\.([^/]+)")  # of a WebDataset: FOLDER/KEY.SUFFIX
#: members that describe a WebDataset and belong to no sample: __index__.json, README.md, .DS_Store, ._000.jpg
WEB_SIDE = re.compile(r"(?:.*/)?(?:\.[^/]*|__\w+__\.\w+|(?:README|LICENSE|LICENCE|NOTICE)(?:\.\w+)?)", re.IGNORECASE)
TEXT_SUFFIXES = ("txt", "text", "caption", "cls", "question", "answer")
PLAIN = {tarfile.REGTYPE, tarfile.AREGTYPE}
SKIPPED = {tarfile.DIRTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK}
HEADER_BYTES = 2**20  # at most, of a header that holds the name of the next member
Member = tuple[int, int]  # offset in the shard, size in bytes


class TarShard:
    """Random access to the items of a shard. Opening it reads only the headers."""

    def __init__(self, file: Path, limits: Limits | None = None):
        self.file, self.limits = file, limits or Limits()
        self._items: dict[str, dict[str, Member] | DataError] = {}
        with open(file, "rb") as handle:
            self._scan(handle)
        self._keys = list(self._items)

    def __len__(self) -> int:
        return len(self._keys)

    def order(self, random: np.random.Generator | None = None) -> list[int]:
        """The numbers of all items, in file order or shuffled with ``random``."""
        return list(range(len(self))) if random is None else random.permutation(len(self)).tolist()

    def item(self, number: int) -> Raw:
        """The raw item ``number``."""
        key = self._keys[number]
        members = self._items[key]
        if isinstance(members, DataError):
            return Raw(number, members, name_prefix="")
        if "json" not in members:
            return Raw(
                number,
                DataError("E21", "", f"'{key}.json' is not in the shard, only its images. Pack the set again."),
                name_prefix="",
            )
        return Raw(number, self._read(members["json"], LINE_BYTES), partial(self._picture, members), f"{key}.")

    def _picture(self, members: dict[str, Member], name: str) -> bytes | None:
        return self._read(members[name], self.limits.bytes) if name in members and name != "json" else None

    def _read(self, member: Member, limit: int) -> bytes:
        start, size = member
        with open(self.file, "rb") as handle:
            handle.seek(start)
            return handle.read(min(size, limit + 1))

    def _scan(self, handle: BinaryIO) -> None:
        """Index the offsets of all members. An invalid member becomes an item that holds its error."""
        size, offset, long_name = handle.seek(0, 2), 0, ""
        while offset < size:
            handle.seek(offset)
            try:
                header = tarfile.TarInfo.frombuf(handle.read(BLOCK), "utf-8", "surrogateescape")
            except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed lacks it
                return
            except (tarfile.HeaderError, ValueError):
                self._add_error(
                    offset,
                    DataError(
                        "E22", "", f"no tar header at byte {offset}: the shard is cut or damaged. Copy it again."
                    ),
                )
                return
            name, offset = (long_name or header.name).removeprefix("./"), offset + BLOCK
            quoted_name = repr(name[:80])
            if header.size < 0:
                self._add_error(
                    offset,
                    DataError("E22", "", f"{quoted_name} has a size below 0: the shard is damaged. Copy it again."),
                )
                return
            if offset + header.size > size:
                self._add_error(
                    offset, DataError("E22", "", f"ends inside {quoted_name}: the shard is cut. Copy it again.")
                )
                return
            long_name = ""
            if header.type in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
                long_name = _long_name(header, handle.read(min(header.size, HEADER_BYTES)))
            elif header.type in PLAIN:
                self._add_member(name, quoted_name, (offset, header.size))
            elif header.type not in SKIPPED:
                self._add_error(offset, DataError("E21", "", f"{quoted_name} is not a plain file. Remove it."))
            offset += -(-header.size // BLOCK) * BLOCK
        self._add_error(offset, DataError("E22", "", "has no end: the shard is cut. Copy it again."))

    def _match(self, name: str, quoted_name: str, offset: int) -> re.Match | None:
        """Key and suffix of a member. A name of another form is an error."""
        match = NAME.fullmatch(name)
        if not match:
            what = f"{quoted_name} is not named KEY.json or KEY.NAME.png, with no dot in the key. Rename it."
            self._add_error(offset, DataError("E21", "", what))
        return match

    def _add_member(self, name: str, quoted_name: str, member: Member) -> None:
        match = self._match(name, quoted_name, member[0])
        if not match:
            return
        members = self._items.setdefault(match[1], {})
        if match[2] in members:
            self._add_error(member[0], DataError("E21", "", f"{quoted_name} occurs twice. Keep one."))
        members[match[2]] = member

    def _add_error(self, offset: int, error: DataError) -> None:
        self._items[f"{offset}."] = error  # keys contain no dot, so this name is unique


def _long_name(header: tarfile.TarInfo, data: bytes) -> str:
    """The name of the next member, by its own header: the record ``path`` of PAX, or the text of GNU. Empty if there is
    none."""
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return data.partition(b"\0")[0].decode("utf-8", "surrogateescape")
    name = ""
    while match := re.match(rb"(\d{1,7}) ([^=\n]+)=", data):  # records are LENGTH KEY=VALUE and a line break
        if match[2] == b"path":
            name = data[match.end() : int(match[1]) - 1].decode("utf-8", "surrogateescape")
        data = data[max(int(match[1]), match.end()) :]
    return name


class WebShard(TarShard):
    """The samples of a WebDataset as rows: the fields of ``KEY.json``, the text of ``KEY.txt`` and images such as
    ``KEY.jpg``. Texts and images are columns with the name of their suffix. ``__key__`` is the key."""

    def _match(self, name: str, quoted_name: str, offset: int) -> re.Match | None:
        """Key and suffix of a member; None for a member that describes the set. A name without a suffix is an error."""
        if WEB_SIDE.fullmatch(name):
            return None
        match = WEB_NAME.fullmatch(name.lstrip("/"))
        if not match:
            self._add_error(offset, DataError("E21", "", f"{quoted_name} is not named KEY.SUFFIX. Rename it."))
        return match

    def item(self, number: int) -> Raw:
        key = self._keys[number]
        members = self._items[key]
        if isinstance(members, DataError):
            return Raw(number, members)
        try:
            row = {"__key__": key} | self._fields(key, members)
        except DataError as error:
            return Raw(number, error)
        names = {
            name: suffix for suffix in members for name in (suffix, f"{key}.{suffix}", f"{Path(key).name}.{suffix}")
        }
        return Raw(number, row, lambda name: self._picture(members, names.get(name, "json")))

    def _fields(self, key: str, members: dict[str, Member]) -> dict:
        fields: dict = {}
        for suffix, member in members.items():
            if suffix == "json":
                value = decode(self._read(member, LINE_BYTES))
                if not isinstance(value, dict):
                    raise DataError("E05", f"{key}.json", "expected an object. Write one object for each sample.")
                fields |= value
            elif suffix.rpartition(".")[2] in TEXT_SUFFIXES:
                try:
                    fields[suffix] = self._read(member, LINE_BYTES).decode().strip()
                except UnicodeDecodeError:
                    raise DataError("E01", f"{key}.{suffix}", "not UTF-8. Save the file as UTF-8.") from None
            else:
                fields[suffix] = StoredName(suffix)
        return fields


def rows(file: Path, limits: Limits | None = None) -> Iterator[Raw]:
    """Yield the samples of a WebDataset shard as rows, numbered from 0."""
    shard = WebShard(file, limits)
    return (shard.item(number) for number in shard.order())


class TarWriter:
    """Writes a shard. Equal items give equal bytes."""

    suffix = ".tar"

    def __init__(self, file: Path):
        self.items, self.bytes = 0, 0
        self._handle = open(file, "xb")
        self._tar = tarfile.open(fileobj=self._handle, mode="w", format=tarfile.USTAR_FORMAT)

    def add(self, columns: dict, line: str, names: Sequence[str], pictures: Sequence[bytes]) -> None:
        """Add an item: the record ``line`` and its images under the names used in the record."""
        files = {"json": line.encode(), **dict(zip(names, pictures, strict=True))}
        for name in sorted(files):
            info = tarfile.TarInfo(f"{self.items:09}.{name}")  # time 0 and no owner, so that the bytes are reproducible
            info.size = len(files[name])
            self._tar.addfile(info, BytesIO(files[name]))
        self.items, self.bytes = self.items + 1, self._handle.tell()

    def close(self) -> None:
        self._tar.close()
        self._handle.close()

    @staticmethod
    def name(kind: str, number: int, place: int, suffix: str) -> str:
        """The name of an image in a record: its kind (``p``: input, ``s``: sketch) and its index within that kind."""
        return f"{kind}{number}.{suffix}"
