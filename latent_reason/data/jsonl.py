"""Strict JSON and JSON lines reader. Input that the standard parser accepts silently (E01-E04) is an error."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DataError

BOM = b"\xef\xbb\xbf"
LINE_BYTES = 32 * 2**20
CHUNK_BYTES = 2**20
STRUCTURE = re.compile(rb'\\.|["\[\]{},]', re.DOTALL)  # escapes are matched so that they are skipped


def lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number, line). A line is cut one byte after ``LINE_BYTES``."""
    row = 0
    with open(file, "rb") as handle:
        while line := handle.readline(LINE_BYTES + 1):
            row += 1
            yield row, line
            while len(line) > LINE_BYTES and not line.endswith(b"\n"):
                line = handle.readline(LINE_BYTES + 1)


def elements(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (index, element) of the JSON list in a file. An element is cut one byte after ``LINE_BYTES``.

    A file without a list is one element. If the list is truncated or text follows it, the last element is one that
    ``decode`` rejects. The whole list is never kept in memory.
    """
    row, depth, in_string = 0, 0, False
    with open(file, "rb") as handle:
        chunk = handle.read(CHUNK_BYTES)
        element = bytearray(BOM if chunk.startswith(BOM) else b"")
        start = chunk.removeprefix(BOM).lstrip()
        if not start.startswith(b"["):
            yield 0, chunk + handle.read(max(0, LINE_BYTES + 1 - len(chunk)))
            return
        chunk = start[1:] or handle.read(CHUNK_BYTES)
        while chunk:
            if (len(chunk) - len(chunk.rstrip(b"\\"))) % 2:  # do not split an escape
                chunk += handle.read(1)
            begin = 0
            for match in STRUCTURE.finditer(chunk):
                token = match[0]
                if token == b'"':
                    in_string = not in_string
                elif in_string or len(token) > 1:
                    continue
                elif token in b"[{":
                    depth += 1
                elif depth and token in b"]}":
                    depth -= 1
                elif not depth and token in b",]":
                    _append(element, chunk[begin : match.start()])
                    if token == b"," or row or element.strip():
                        yield row, bytes(element)
                    row, begin, element = row + 1, match.end(), bytearray()
                    if token == b"]":
                        rest = (chunk[begin:] + handle.read(CHUNK_BYTES)).strip()
                        if rest:
                            yield row, b"[] " + rest[:100]  # invalid JSON, which ``decode`` rejects
                        return
            _append(element, chunk[begin:])
            chunk = handle.read(CHUNK_BYTES)
    if element.strip() and not depth and not in_string:
        yield row, bytes(element)
        row, element = row + 1, bytearray()
    yield row, bytes(element)


def _append(element: bytearray, piece: bytes) -> None:
    element += piece[: LINE_BYTES + 1 - len(element)]


def to_line(record: dict) -> str:
    """Encode ``record`` as one JSON line. Raises DataError (E05) for values that JSON cannot represent."""
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        line.encode()
    except (TypeError, ValueError, RecursionError) as error:
        what = f"cannot be written as JSON ({error}). Use only text, numbers, lists and objects."
        raise DataError("E05", "record", what) from None
    return line


@dataclass(frozen=True)
class _NotJson:
    """Placeholder for NaN or infinity, until its field name is known."""

    name: str


class _DuplicateKey(Exception):
    """A key occurs twice in an object."""


def decode(line: bytes) -> Any:
    """Decode the JSON value of a line. Raises DataError E01 to E04."""
    if len(line) > LINE_BYTES:
        raise DataError("E02", "line", f"longer than {LINE_BYTES // 2**20} MiB. Write one object per line.")
    try:
        text = line.decode("utf-8").rstrip()
    except UnicodeDecodeError as error:
        what = f"not UTF-8 (0x{line[error.start]:02X}). Save the file as UTF-8."
        raise DataError("E01", f"byte {error.start + 1}", what) from None
    not_json: list[_NotJson] = []

    def constant(name: str) -> _NotJson:
        not_json.append(_NotJson(name))
        return not_json[-1]

    def number(digits: str) -> float | _NotJson:
        value = float(digits)
        return value if math.isfinite(value) else constant("a number beyond all floats")

    try:
        value = json.loads(text, parse_constant=constant, parse_float=number, object_pairs_hook=_object)
        if "\\ud" in text or "\\uD" in text:  # the parser accepts half a surrogate pair, which fails later
            json.dumps(value, ensure_ascii=False, default=str).encode()
    except _DuplicateKey as error:
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
        raise DataError("E01", "line", "contains half a surrogate pair. Save the file as UTF-8.") from None
    except (ValueError, RecursionError):
        raise DataError("E02", "line", "numbers too long or nesting too deep to read. Write it again.") from None
    if not_json:
        name = not_json[0].name
        raise DataError("E03", _path_of(value, not_json[0])[:200], f"{name} is not JSON. Replace or drop the row.")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _DuplicateKey(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return result


def _path_of(value: Any, wanted: _NotJson) -> str:
    """The path of ``wanted`` in ``value``, such as ``bboxes[0][2]``; empty if it is the value itself or missing."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        deeper = "" if child is wanted else _path_of(child, wanted)
        if child is wanted or deeper:
            step = f"[{key}]" if isinstance(value, list) else str(key)[:80]
            return step + ("" if not deeper or deeper.startswith("[") else ".") + deeper
    return ""
