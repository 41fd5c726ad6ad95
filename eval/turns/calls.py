"""Calls of tools in the text of a model: plain ones as ``crop(10, 20, 90, 80)``, JSON in ``<tool_call>`` tags as Qwen
writes them, and blocks of code."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

CODE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
TOOL_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


class ToolCall(NamedTuple):
    """A call of a tool: its numbers in order, or what is wrong with it, and where it ends in the text."""

    name: str
    numbers: tuple[float, ...]
    error: str | None
    end: int


class Code(NamedTuple):
    """A block of code and where it ends in the text."""

    text: str
    end: int


def find_code(text: str) -> Code | None:
    """The first fenced block of code. One that is not closed ends with the text."""
    match = CODE.search(text)
    return Code(match[1], match.end()) if match else None


def find_calls(text: str, names: Collection[str]) -> list[ToolCall]:
    """The calls of the first place in a text where tools of ``names`` are called: one ``<tool_call>``, or plain calls that
    follow each other without other words between them. Malformed calls have an ``error``. Never raises."""
    plain = re.compile(rf"\b({'|'.join(sorted(map(re.escape, names)))})\(([^()\n]*)(\)|\n|\Z)")
    first, tagged = plain.search(text), TOOL_CALL.search(text)
    if tagged and (first is None or tagged.start() < first.start()):
        return [_read_json(tagged[1], names, tagged.end())]
    found: list[ToolCall] = []
    match = first
    while match and (not found or re.fullmatch(r"[\s;,]*", text[found[-1].end : match.start()])):
        found.append(_read_plain(match))
        match = plain.search(text, match.end())
    return found


def _read_plain(match: re.Match) -> ToolCall:
    name, given, close = match.groups()
    parts = [part.strip(" []()") for part in given.split(",")] if given.strip() else []
    if close != ")":
        return ToolCall(name, (), f"{name}: the bracket is not closed.", match.end())
    if wrong := [part for part in parts if not NUMBER.fullmatch(part)]:
        return ToolCall(name, (), f"{name}: {wrong[0][:40]!r} is no number.", match.end())
    return _checked(name, tuple(map(float, parts)), match.end())


def _checked(name: str, numbers: tuple[float, ...], end: int) -> ToolCall:
    if not all(map(math.isfinite, numbers)):
        return ToolCall(name, (), f"{name}: a number is too large.", end)
    return ToolCall(name, numbers, None, end)


def _read_json(text: str, names: Collection[str], end: int) -> ToolCall:
    try:
        call = json.loads(text)
        name, arguments = call["name"], call["arguments"]
        numbers = tuple(_numbers(arguments))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return ToolCall("", (), "the tool call is no JSON with name and arguments.", end)
    if name not in names:
        return ToolCall("", (), f"there is no tool {str(name)[:40]!r}. Tools: {', '.join(sorted(names))}.", end)
    return _checked(name, numbers, end)


def _numbers(value: Any) -> Iterator[float]:
    """All numbers of a JSON value in their order; texts, such as labels, are left out."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)
