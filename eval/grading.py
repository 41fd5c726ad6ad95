"""A model as a judge of single responses: how much likelier does it say that a response is good than that it is not?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from latent_reason.trace import Image, Message, Part, Text, Trace

from .likelihood import log_odds

GRADE_QUESTION = "Is this a good and correct response? Put Yes or No in \\boxed{}."
#: of a content: ("text", text) or ("image", what has ``load``)
Content = Sequence[tuple[str, Any]]


def grade_trace(id: str, request: Content, response: Content, mode: str) -> Trace:
    """The prompt that asks whether a response to a request is good. A response may have pictures."""
    parts = [("text", "A request and a response to it.\n\nRequest:\n"), *request, ("text", "\n\nResponse:\n")]
    parts += [*response, ("text", f"\n\n{GRADE_QUESTION}")]
    return Trace(id, (Message("user", tuple(map(part_of, parts))),), "grade", "test", mode=mode)


def part_of(content: tuple[str, Any]) -> Part:
    kind, value = content
    return Image(value.load()) if kind == "image" else Text(value)


def grade(reasoner, traces: Sequence[Trace]) -> list[float]:
    """The log-odds of Yes against No after each prompt of :func:`grade_trace`, in nats."""
    return log_odds(reasoner, traces, "Yes", "No")
