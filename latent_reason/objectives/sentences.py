"""Reasoning in text as sentences, for methods that put latents in their place."""

from __future__ import annotations

import re

from ..trace import Text, Trace


def split_sentences(text: str) -> list[str]:
    """Sentences and lines of a text. Nothing in the braces of a box ends one."""
    sentences, start, opened = [], 0, 0
    for match in re.finditer(r"\\boxed\s*\{|[{}]|(?<=\.)\s+|(?<=\n)", text):
        if match[0].endswith("{"):
            opened += bool(opened) or match[0] != "{"
        elif match[0] == "}":
            opened = max(0, opened - 1)
        elif not opened:
            sentences.append(text[start : match.start()])
            start = match.end()
    return [*sentences, text[start:]]


def check_texts_can_be_joined(trace: Trace, name: str) -> None:
    """Raises ValueError if some texts of the answer have a loss and others have none."""
    if len({p.loss == 0 for p in trace.messages[-1].content if isinstance(p, Text) and p.text}) > 1:
        raise ValueError(
            f"some texts of its answer have no loss and others have one, but method {name!r} joins them. Give all of "
            "them a loss."
        )
