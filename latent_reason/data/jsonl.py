"""JSON, a row at a time, read more strictly than the usual parser: what it lets pass in silence is an error here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DataError

BOM = b"\xef\xbb\xbf"
LINE_BYTES = 32 * 2**20
CHUNK_BYTES = 2**20
STRUCTURE = re.compile(rb'\\.|["\[\]{},]', re.DOTALL)  # escapes are matched to be passed over


def lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines, each read to one byte past the limit at most."""
    row = 0
    with open(file, "rb") as handle:
        while line := handle.readline(LINE_BYTES + 1):
            row += 1
            yield row, line
            while len(line) > LINE_BYTES and not line.endswith(b"\n"):
                line = handle.readline(LINE_BYTES + 1)


def elements(file: Path) -> Iterator[tuple[int, bytes]]:
    """The elements of the JSON list in a file, numbered from 0, each read to one byte past the limit at most.

    A file that holds no list is one element. Where a list is cut, or something stands behind it, the last element is
    one that ``decode`` refuses. Unlike the usual parser this never holds the whole list.
    """
    row, depth, quoted = 0, 0, False
    with open(file, "rb") as handle:
        chunk = handle.read(CHUNK_BYTES)
        element = bytearray(BOM if chunk.startswith(BOM) else b"")
        start = chunk.removeprefix(BOM).lstrip()
        if not start.startswith(b"["):
            yield 0, chunk + handle.read(max(0, LINE_BYTES + 1 - len(chunk)))
            return
        chunk = start[1:] or handle.read(CHUNK_BYTES)
        while chunk:
            if (len(chunk) - len(chunk.rstrip(b"\\"))) % 2:  # do not part an escape
                chunk += handle.read(1)
            begin = 0
            for sign in STRUCTURE.finditer(chunk):
                found = sign[0]
                if found == b'"':
                    quoted = not quoted
                elif quoted or len(found) > 1:
                    continue
                elif found in b"[{":
                    depth += 1
                elif depth and found in b"]}":
                    depth -= 1
                elif not depth and found in b",]":
                    _append(element, chunk[begin : sign.start()])
                    if found == b"," or row or element.strip():
                        yield row, bytes(element)
                    row, begin, element = row + 1, sign.end(), bytearray()
                    if found == b"]":
                        behind = (chunk[begin:] + handle.read(CHUNK_BYTES)).strip()
                        if behind:
                            yield row, b"[] " + behind[:100]  # a list and then more, for the parser to refuse
                        return
            _append(element, chunk[begin:])
            chunk = handle.read(CHUNK_BYTES)
    if element.strip() and not depth and not quoted:
        yield row, bytes(element)
        row, element = row + 1, bytearray()
    yield row, bytes(element)


def _append(element: bytearray, piece: bytes) -> None:
    element += piece[: LINE_BYTES + 1 - len(element)]


def to_line(record: dict) -> str:
    """``record`` as JSON on one line. Raises DataError (E05) for what JSON cannot hold."""
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        line.encode()
    except (TypeError, ValueError) as error:
        what = f"cannot be written as JSON ({error}). Keep to text, numbers, lists and objects."
        raise DataError("E05", "record", what) from None
    return line


@dataclass(frozen=True)
class _NotJson:
    """Stands where the parser met NaN or infinity, until its place is known."""

    name: str


class _Twice(Exception):
    """A key that an object holds twice."""


def decode(line: bytes) -> Any:
    """The JSON value of a line, more strictly than the usual parser: E01 to E04."""
    if len(line) > LINE_BYTES:
        raise DataError("E02", "line", f"longer than {LINE_BYTES // 2**20} MiB. Write one object per line.")
    try:
        text = line.decode("utf-8").rstrip()
    except UnicodeDecodeError as error:
        what = f"not UTF-8 (0x{line[error.start]:02X}). Save the file as UTF-8."
        raise DataError("E01", f"byte {error.start + 1}", what) from None
    strange: list[_NotJson] = []

    def constant(name: str) -> _NotJson:
        strange.append(_NotJson(name))
        return strange[-1]

    def number(digits: str) -> float | _NotJson:
        value = float(digits)
        return value if math.isfinite(value) else constant("a number beyond all floats")

    try:
        value = json.loads(text, parse_constant=constant, parse_float=number, object_pairs_hook=_object)
        if "\\ud" in text or "\\uD" in text:  # half a surrogate pair passes the parser, and fails much later
            json.dumps(value, ensure_ascii=False, default=str).encode()
    except _Twice as error:
        raise DataError("E04", "key", f"key '{error.args[0][:80]}' twice. Keep one.") from None
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            what = "a second value begins here. Write one object per line."
        elif error.pos >= len(text) or error.msg.startswith("Unterminated string"):
            what = "JSON ends early. The file looks cut; copy or write it again."
        else:
            what = f"not JSON ({error.msg}). Write the line again."
        raise DataError("E02", f"column {error.colno}", what) from None
    except UnicodeEncodeError:
        raise DataError("E01", "line", "holds half a surrogate pair. Save the file as UTF-8.") from None
    except (ValueError, RecursionError):
        raise DataError("E02", "line", "numbers too long or nesting too deep to read. Write it again.") from None
    if strange:
        name = strange[0].name
        raise DataError("E03", _place(value, strange[0]), f"{name} is not JSON. Replace or drop the row.")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(next(key for key in keys if keys.count(key) > 1))
    return made


def _place(value: Any, wanted: _NotJson) -> str:
    """Where ``wanted`` sits, like ``bboxes[0][2]``; empty where it is the whole value or is not found."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        deeper = "" if one is wanted else _place(one, wanted)
        if one is wanted or deeper:
            step = f"[{key}]" if isinstance(value, list) else str(key)
            return step + ("" if not deeper or deeper.startswith("[") else ".") + deeper
    return ""
