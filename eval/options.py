"""Options that stand in the text of a question."""

from __future__ import annotations

import re
from string import ascii_uppercase as LETTERS

#: how they are written: (A) x, A. x on a line each, and A: x, B: y behind "Options:"
STYLES = (
    re.compile(r"\(([A-Ja-j])\)\s*"),
    re.compile(r"^([A-J])[.)]\s+", re.MULTILINE),
    re.compile(r"(?:(?<=Options:)|(?<=,)|^)\s*([A-J]):\s*", re.MULTILINE),
)
ASKS = re.compile(
    r"\n\s*(?:Please )?(?:select|choose|answer)\b[^\n]*(?:letter|option|choice|directly)[^\n]*\s*$", re.IGNORECASE
)


def parted(text: str) -> tuple[str, list[str]]:
    """(question, options) of a text that lists its options in order from A; no options where it does not.

    A closing line that asks for the letter is left out, as the prompt asks itself."""
    text = ASKS.sub("", text.strip())
    for style in STYLES:
        marks = list(style.finditer(text))
        for start in (i for i in range(len(marks) - 1, -1, -1) if marks[i][1].upper() == "A"):  # the last list there is
            found = run(marks[start:])
            ends = [one.start() for one in found[1:]] + [len(text)]
            options = [text[one.end() : end].strip().rstrip(",").strip() for one, end in zip(found, ends, strict=True)]
            if len(options) > 1 and all(options):
                return re.sub(r"\s*(?:Options|Choices):?\s*$", "", text[: found[0].start()]).strip(), options
    return text, []


def run(marks: list[re.Match]) -> list[re.Match]:
    """A, then the next B, the next C, ..."""
    found: list[re.Match] = []
    for mark in marks:
        if mark[1].upper() == LETTERS[len(found)]:
            found.append(mark)
    return found
