"""Calls of tools in the text of a model: lines as ``crop(10, 20, 90, 80)``, JSON in ``<tool_call>`` tags as Qwen writes
them, and blocks of Python code."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

OPENING = re.compile(r"```[ \t]*(\w*)[ \t]*$", re.MULTILINE)  # the end of a line; the start of another one closes it
CLOSING = re.compile(r"^[ \t]*```", re.MULTILINE)
PYTHON = ("python", "python3", "py")
TOOL_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)")
DIGIT = re.compile(r"\d")
LONGEST = 4000  # characters of a call


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
    """The first fenced block that is marked as Python. One that is not closed ends with the text. Other blocks are left
    alone: a model also writes answers and data in fences."""
    at = 0
    while opening := OPENING.search(text, at):
        closing = CLOSING.search(text, opening.end())
        start, stop, at = opening.end() + 1, *(closing.span() if closing else (len(text), len(text)))
        if opening[1].lower() in PYTHON:
            return Code(text[start:stop], at)
    return None


def find_calls(text: str, names: Collection[str]) -> list[ToolCall]:
    """The calls of one turn: the first ``<tool_call>``, or the first lines that end with a call and follow each other.
    Words may stand before a call on its line. Malformed calls have an ``error``. Never raises."""
    tagged, calls = TOOL_CALL.search(text), find_all_calls(text, names)
    if tagged and not (calls and calls[0].end <= tagged.start()):
        return [_read_json(tagged[1], names, tagged.end())]
    group = calls[:1]
    for call in calls[1:]:
        if text[group[-1].end : call.end].strip(" \t\r;,.").count("\n") > 1:
            break
        group.append(call)
    return group


def find_all_calls(text: str, names: Collection[str]) -> list[ToolCall]:
    """Every line that ends with a call, in order. A call in the middle of a sentence is no call."""
    begin = re.compile(rf"(?<![\w.])({'|'.join(sorted(map(re.escape, names), key=len, reverse=True))})[ \t]*\(")
    calls, at = list[ToolCall](), 0
    for line in text.splitlines(keepends=True):
        for match in list(begin.finditer(line)):
            end = _closing(line, match.end() - 1)
            if end is None:
                if DIGIT.search(line, match.end()):
                    calls.append(
                        ToolCall(match[1], (), f"{match[1]}: the bracket is not closed.", at + len(line.rstrip()))
                    )
                    break
            elif not line[end:].strip(" \t\r\n;,.`") or begin.match(line[end:].lstrip(" \t;,")):
                if DIGIT.search(line, match.end(), end):  # "the line(s)" is no call
                    calls.append(_read_call(match[1], line[match.end() : end - 1], at + end))
        at += len(line)
    return calls


def _closing(line: str, start: int) -> int | None:
    """Where the bracket that opens at ``start`` is closed: the place after it."""
    depth = 0
    for at in range(start, min(len(line), start + LONGEST)):
        depth += (line[at] == "(") - (line[at] == ")")
        if not depth:
            return at + 1
    return None


def _read_call(name: str, given: str, end: int) -> ToolCall:
    parts = [part.rpartition("=")[2].strip(" []()") for part in given.split(",")]
    if wrong := [part for part in parts if not NUMBER.fullmatch(part)]:
        return ToolCall(name, (), f"{name}: {wrong[0][:40]!r} is no number.", end)
    return _checked(name, tuple(map(float, parts)), end)


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
