"""Data folders that are broken, absurd or hostile. ``CASES`` is the catalogue, one row a case."""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

RECORD = {
    "schema": "latent_reason/1",
    "id": "a",
    "task": "t",
    "split": "train",
    "level": 1,
    "mode": "direct",
    "messages": [
        {"role": "user", "content": [{"type": "image", "image": "img/p.png"}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "\\boxed{3}"}]},
    ],
    "answer": "3",
}


class Case(NamedTuple):
    """A hostile folder: ``make(folder)`` adds to a folder with ``img/p.png``; ``words`` are in the errors."""

    kind: str
    what: str  # one sentence of the catalogue
    make: Callable[[Path], object]
    words: tuple[str, ...]
    format: str = "native"


def at(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Makes the file ``name`` of the folder."""

    def run(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return run


def line(**changes) -> Callable[[Path], object]:
    """A file of one native record with changes."""
    return at("t.jsonl", lambda file: file.write_text(json.dumps(RECORD | changes) + "\n"))


def text(name: str, data: bytes, size: int = 0) -> Callable[[Path], object]:
    """A file of these bytes, with NULs up to ``size``."""
    return at(name, lambda file: (file.write_bytes(data), size and os.truncate(file, size)))


def picture(data: bytes | Callable[[Path], object]) -> Callable[[Path], object]:
    """A good record whose picture is this file."""

    def run(folder: Path) -> None:
        line()(folder)
        at("img/p.png", (lambda file: file.write_bytes(data)) if isinstance(data, bytes) else data)(folder)

    return run


def png(width: int, height: int, extra: bytes = b"") -> bytes:
    """A PNG that claims a size and holds no more than a kilobyte of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A compressed text chunk of 100 MB of zeros."""
    data = b"Comment\0\0" + zlib.compress(b"\0" * 10**8)
    return struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))


def a_socket(file: Path) -> None:
    here = os.getcwd()
    os.chdir(file.parent)  # the path of a socket has at most 108 characters
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(file.name)
    finally:
        os.chdir(here)


def shard(*members: tuple[str, bytes], link: str = "", kind: bytes = tarfile.SYMTYPE) -> Callable[[Path], object]:
    """A tar file of members, the last of which may be a ``link`` or another special kind."""

    def make(file: Path) -> None:
        with tarfile.open(file, "w") as made:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                made.addfile(info, io.BytesIO(data))
            if link:
                info = tarfile.TarInfo("0.p0.png")
                info.type, info.linkname = kind, link
                made.addfile(info)

    return at("x.tar", make)


def archive(file: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("../../t.jsonl", b"\0" * 10**6)


def manifest(**values) -> Callable[[Path], object]:
    """A manifest beside a shard."""

    def make(folder: Path) -> None:
        shard(("0.json", b"{}"))(folder)
        (folder / "dataset.json").write_text(json.dumps({"schema": "latent_reason/1"} | values))

    return make


def beside_shard(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def run(folder: Path) -> None:
        shard(("0.json", b"{}"))(folder)
        make(folder / "dataset.json")

    return run


def linked(target: str) -> Callable[[Path], object]:
    return lambda file: file.symlink_to(target)


CUT, LINK = "numbers too long or nesting too deep", "leaves the data folder by a link"
NOT_PLAIN, NONE = "is no plain file", "file found"
CASES = [
    # files that are no plain files
    Case("file", "A pipe as the records.", at("t.jsonl", os.mkfifo), ("t.jsonl: is no plain file",)),
    Case("file", "A socket as the records.", at("t.jsonl", a_socket), ("t.jsonl: is no plain file",)),
    Case("file", "A folder named as records.", at("t.jsonl", Path.mkdir), ("t.jsonl: is no plain file",)),
    Case("file", "A link to a device that never ends.", at("t.jsonl", linked("/dev/zero")), (f"t.jsonl: {LINK}",)),
    Case("file", "A link to a file of the system.", at("t.jsonl", linked("/etc/passwd")), (f"t.jsonl: {LINK}",)),
    Case("file", "A link to itself.", at("t.jsonl", linked("t.jsonl")), ("t.jsonl: is no plain file",)),
    Case("file", "A link to nothing.", at("t.jsonl", linked("none")), ("t.jsonl: is no plain file",)),
    Case("file", "A pipe as a tar shard.", at("x.tar", os.mkfifo), ("x.tar: is no plain file",)),
    Case("file", "A pipe as a parquet shard.", at("x.parquet", os.mkfifo), ("x.parquet: is no plain file",)),
    Case("file", "A pipe as the manifest.", beside_shard(os.mkfifo), ("dataset.json: is no plain file",)),
    Case("file", "A folder as the manifest.", beside_shard(Path.mkdir), ("dataset.json: is no plain file",)),
    Case("file", "An endless manifest.", beside_shard(linked("/dev/zero")), ("dataset.json: is no plain file",)),
    Case("file", "A pipe as a table.", at("t.csv", os.mkfifo), (NONE,), "table"),
    Case("file", "A device as an arrow file.", at("t.arrow", linked("/dev/zero")), (NONE,), "table"),
    Case("file", "A link of a table to a file of the system.", at("t.json", linked("/etc/passwd")), (LINK,), "table"),
    # pictures
    Case("picture", "A pipe as a picture.", picture(os.mkfifo), ("t.jsonl:1: ", "'img/p.png' not found")),
    Case("picture", "A device as a picture.", picture(linked("/dev/zero")), ("t.jsonl:1: ", "'img/p.png' not found")),
    Case(
        "picture",
        "A picture that links to a file of the system.",
        picture(linked("/etc/passwd")),
        ("t.jsonl:1: ", LINK),
    ),
    Case("picture", "A picture that is text.", picture(b"hello, world"), ("t.jsonl:1: ", "it begins 'hello'")),
    Case("picture", "An empty picture.", picture(b""), ("t.jsonl:1: ", "it is empty")),
    Case("picture", "A picture that breaks off.", picture(png(50, 50)[:60]), ("t.jsonl:1: ", "cannot be decoded")),
    Case("picture", "A small file of 10^18 pixels.", picture(png(2**30, 2**30)), ("t.jsonl:1: ", "64 megapixels")),
    Case(
        "picture",
        "A picture one pixel high and a million wide.",
        picture(png(10**6, 1)),
        ("t.jsonl:1: ", "16,384 pixels a side"),
    ),
    Case(
        "picture",
        "A picture of 192 MB with a kilobyte of data.",
        picture(png(8000, 8000)),
        ("t.jsonl:1: ", "cannot be decoded"),
    ),
    Case("picture", "A picture of no width.", picture(png(0, 4)), ("t.jsonl:1: ", "img/p.png")),
    Case(
        "picture",
        "A picture with 100 MB of compressed text.",
        picture(png(4, 4, text_bomb())),
        ("t.jsonl:1: ", "img/p.png"),
    ),
    Case(
        "picture",
        "A picture file of 60 MB.",
        picture(lambda file: (file.write_bytes(png(4, 4)), os.truncate(file, 60 * 2**20))),
        ("larger than 50 MiB",),
    ),
    Case(
        "picture",
        "A vector graphic that names a file.",
        picture(b'<svg><image href="/etc/passwd"/></svg>'),
        ("not a readable PNG",),
    ),
    Case(
        "picture",
        "A picture in an interpreted language.",
        picture(b"%!PS-Adobe-3.0 EPSF-3.0\n"),
        ("not a readable PNG",),
    ),
    # lines
    Case(
        "line",
        "A line of 40 MB without an end.",
        text("t.jsonl", b'{"id":"', 40 * 2**20),
        ("t.jsonl:1: line: longer than 32 MiB",),
    ),
    Case(
        "line",
        "A list element of 40 MB.",
        text("t.json", b'[{"q":"', 40 * 2**20),
        ("t.json:0: line: longer than 32 MiB",),
        "table",
    ),
    Case("line", "A CSV line of 40 MB.", text("t.csv", b"q,a\n", 40 * 2**20), ("a line longer than 32 MiB",), "table"),
    Case(
        "line",
        "A CSV cell of many lines that never ends.",
        text("t.csv", b'q,a\n"' + b"x\n" * 1000),
        ("cannot be read as CSV",),
        "table",
    ),
    Case("line", "A million brackets.", text("t.jsonl", b"[" * 10**6), (CUT,)),
    Case("line", "A thousand objects in each other.", text("t.jsonl", b'{"a":' * 5000 + b"1" + b"}" * 5000), (CUT,)),
    Case("line", "A number of a million digits.", text("t.jsonl", b'{"id":' + b"9" * 10**6 + b"}"), (CUT,)),
    Case(
        "line",
        "100,000 keys, one of them twice.",
        text("t.jsonl", b"{" + b",".join(b'"k%d":0' % i for i in range(10**5)) + b',"k7":1}\n'),
        ("key 'k7' twice",),
    ),
    Case(
        "line",
        "100,000 keys that nobody knows.",
        lambda d: (line(**{f"k{i}": 0 for i in range(10**5)})(d), os.truncate(d / "img" / "p.png", 0)),
        ("it is empty",),
    ),
    Case(
        "line",
        "100,000 columns and none that is asked for.",
        text("t.jsonl", json.dumps({f"k{i}": 0 for i in range(10**5)}).encode()),
        ("there is no such column", "more"),
        "table",
    ),
    Case("line", "NaN below 900 lists.", text("t.jsonl", b"[" * 900 + b"NaN" + b"]" * 900), ("NaN is not JSON",)),
    Case("line", "Infinity as a level.", text("t.jsonl", b'{"level": Infinity}'), ("level: Infinity is not JSON",)),
    Case("line", "NUL bytes alone.", text("t.jsonl", b"\0" * 10**5), ("t.jsonl:1: ", "not JSON")),
    Case("line", "Random bytes.", text("t.jsonl", bytes(range(128, 256)) * 100), ("t.jsonl:1: ", "not UTF-8")),
    Case("line", "UTF-16.", text("t.jsonl", json.dumps(RECORD).encode("utf-16")), ("t.jsonl:1: ", "not UTF-8")),
    Case("line", "Half a surrogate pair.", line(answer="\ud800"), ("t.jsonl:1: ", "half a surrogate pair")),
    Case("line", "An id of a megabyte.", line(id="y" * 10**6), ("t.jsonl:1: id:", "1-128 letters")),
    Case(
        "line",
        "A path of a megabyte.",
        at("t.jsonl", lambda file: file.write_text(json.dumps(RECORD).replace("img/p.png", "y" * 10**6))),
        ("not found under",),
    ),
    Case(
        "line",
        "A path with a NUL.",
        at("t.jsonl", lambda file: file.write_text(json.dumps(RECORD).replace("img/p.png", "img/\\u0000"))),
        ("contains a NUL",),
    ),
    Case(
        "line",
        "A path that leaves the folder.",
        at("t.jsonl", lambda file: file.write_text(json.dumps(RECORD).replace("img/p.png", "../../etc/passwd"))),
        ("leaves the data folder",),
    ),
    Case(
        "line",
        "A path to the web.",
        at("t.jsonl", lambda file: file.write_text(json.dumps(RECORD).replace("img/p.png", "http://x.org/a.png"))),
        ("nothing is downloaded",),
    ),
    Case(
        "line",
        "100,000 braces that never close.",
        at("t.jsonl", lambda file: file.write_text(json.dumps(RECORD).replace("boxed{3", "boxed{" + "{" * 10**5))),
        ("boxes nothing",),
    ),
    Case(
        "line",
        "A control token in a question.",
        at("t.jsonl", lambda file: file.write_text(json.dumps(RECORD).replace("What is it?", "<|im_end|>"))),
        ("reserved token '<|im_end|>'",),
    ),
    # archives and tables
    Case(
        "archive",
        "Random bytes named as a tar file.",
        text("x.tar", bytes(range(256)) * 20),
        ("x.tar:0: no tar header",),
    ),
    Case("archive", "An empty tar file.", text("x.tar", b""), ("x.tar:0: has no end",)),
    Case(
        "archive",
        "A compressed file named as a tar file.",
        text("x.tar", gzip.compress(b"\0" * 10**6)),
        ("x.tar:0: no tar header",),
    ),
    Case("archive", "A zip of 1,000 times its size, with a path that leaves.", at("x.zip", archive), (NONE,), "table"),
    Case(
        "archive", "A gzip of 1,000 times its size.", text("t.jsonl.gz", gzip.compress(b"\0" * 10**6)), (NONE,), "table"
    ),
    Case(
        "archive",
        "A tar member that leaves the folder.",
        shard(("../../0.json", b"{}")),
        ("x.tar:0: '../../0.json' is not named",),
    ),
    Case("archive", "A tar member with an absolute path.", shard(("/etc/0.json", b"{}")), ("is not named KEY.json",)),
    Case(
        "archive",
        "A link in a tar file.",
        shard(("0.json", b"{}"), link="/etc/passwd"),
        ("'0.p0.png' is not a plain file",),
    ),
    Case(
        "archive",
        "A hard link in a tar file.",
        shard(("0.json", b"{}"), link="0.json", kind=tarfile.LNKTYPE),
        ("is not a plain file",),
    ),
    Case("archive", "A device in a tar file.", shard(link="x", kind=tarfile.CHRTYPE), ("is not a plain file",)),
    Case(
        "archive",
        "A sparse member that claims terabytes.",
        shard(link="x", kind=tarfile.GNUTYPE_SPARSE),
        ("is not a plain file",),
    ),
    Case("archive", "One member twice.", shard(("0.json", b"{}"), ("0.json", b"{}")), ("'0.json' occurs twice",)),
    Case("archive", "A member that is no JSON.", shard(("0.json", b"\0" * 100)), ("x.tar:0: ", "not JSON")),
    Case(
        "archive",
        "A manifest whose shard leaves the folder.",
        manifest(shards=[{"name": "../x.tar", "items": 1, "sha256": "0"}]),
        ("dataset.json: shards:",),
    ),
    Case(
        "archive",
        "A shard that is not that of the manifest.",
        manifest(shards=[{"name": "x.tar", "items": 1, "sha256": "0"}]),
        ("x.tar: SHA-256 differs",),
    ),
    Case(
        "archive",
        "A manifest of a million brackets.",
        lambda d: (shard(("0.json", b"{}"))(d), text("dataset.json", b"[" * 10**6)(d)),
        ("dataset.json: line: numbers too long",),
    ),
    Case(
        "archive",
        "A parquet file that is none.",
        text("x.parquet", b"PAR1" + bytes(range(256)) + b"PAR1"),
        ("x.parquet: cannot be read as parquet",),
    ),
    Case("archive", "An empty parquet file.", text("x.parquet", b""), ("x.parquet: cannot be read as parquet",)),
    Case(
        "archive",
        "An arrow file that is none.",
        text("x.arrow", b"ARROW1" + bytes(1000)),
        ("x.arrow: cannot be read as arrow",),
        "table",
    ),
    Case(
        "archive",
        "A CSV whose columns have one name.",
        text("t.csv", b"q,q\n1,2\n"),
        ("two columns have one name",),
        "table",
    ),
    Case("archive", "A CSV that is no UTF-8.", text("t.csv", b"q,a\n\xff,1\n"), ("not UTF-8",), "table"),
    Case(
        "folder",
        "A folder of 1,000 empty files.",
        lambda d: [(d / f"{i}.jsonl").touch() for i in range(1000)],
        ("no usable rows in 1000 files",),
    ),
    Case("folder", "A folder without data.", lambda d: None, ("no .jsonl file found",)),
]
