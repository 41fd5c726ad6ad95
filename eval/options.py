"""Answer options that are part of the question text."""

from __future__ import annotations

import re
from string import ascii_uppercase as LETTERS

#: formats of a list of options: (A) x; A. x, one a line; A: x, B: y after "Options:"
STYLES = (
    re.compile(r"\(([A-Ja-j])\)\s*"),
    re.compile(r"^([A-J])[.)]\s+", re.MULTILINE),
    re.compile(r"(?:(?<=Options:)|(?<=,)|^)\s*([A-J]):\s*", re.MULTILINE),
)
ASKS = re.compile(
    r"\n\s*(?:Please )?(?:select|choose|answer)\b[^\n]*(?:letter|option|choice|directly)[^\n]*\s*$", re.IGNORECASE
)


def split_options(text: str) -> tuple[str, list[str]]:
    """(question, options) of a text that lists its options in order from A. ``options`` is empty if there is no list.

    A final line that asks for a letter is removed, because the prompt has its own instruction.
    """
    text = ASKS.sub("", text.strip())
    for style in STYLES:
        marks = list(style.finditer(text))
        starts = [i for i, mark in enumerate(marks) if mark[1].upper() == "A"]
        for start in reversed(starts):  # the last list of the text first
            chosen = consecutive_marks(marks[start:])
            ends = [mark.start() for mark in chosen[1:]] + [len(text)]
            options = [
                text[mark.end() : end].strip().rstrip(",").strip() for mark, end in zip(chosen, ends, strict=True)
            ]
            if len(options) > 1 and all(options):
                return re.sub(r"\s*(?:Options|Choices):?\s*$", "", text[: chosen[0].start()]).strip(), options
    return text, []


def consecutive_marks(marks: list[re.Match]) -> list[re.Match]:
    """The marks of A, the next B, the next C, and so on."""
    chosen: list[re.Match] = []
    for mark in marks:
        if mark[1].upper() == LETTERS[len(chosen)]:
            chosen.append(mark)
    return chosen
