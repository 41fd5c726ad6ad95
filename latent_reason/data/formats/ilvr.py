"""ILVR (arXiv 2512.05665): JSON lines with a question and a ``sequence_plan`` of texts and helper images.

Test rows have ``original_final_answer`` or a map as in Mirage. Rows of older tasks are in the Mirage format.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ...trace import Message, Part, Sketch, Text, Trace
from .. import answers, chats, reading
from ..errors import DataError, Report
from ..pictures import Limits
from ..places import ImageRoots
from ..reading import Fields
from ..record import TYPES, checked_text, get
from . import mirage

REQUIRED = {"text_input", "sequence_plan"}


def read(
    source: str | Path,
    image_root: ImageRoots = None,
    report: Report | None = None,
    limits: Limits | None = None,
    *,
    answer: str = "refuse",
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace. Empty text steps are left out.

    ``answer``: which side is right if ``original_final_answer`` and the boxed answer differ (refuse, field or text).
    Errors: E05 latent without an image, E06 unknown step type, E14 no step with content, E17 two answers.
    """
    answers.check_side(answer)
    return reading.read(source, partial(trace, side=answer), image_root, report, limits)


def trace(fields: Fields, side: str) -> Trace:
    """Convert one row."""
    if not fields.has("sequence_plan") and not fields.has("original_final_answer"):
        return mirage.trace(fields, "ilvr")
    texts = chats.Texts(fields)
    question = mirage.question(texts)
    answer = fields.answer("original_final_answer") if fields.has("original_final_answer") else None
    if not fields.has("sequence_plan"):
        return reading.record(fields, "ilvr", [question], answer=answer, split="test")
    steps = fields.get("sequence_plan", list)
    if not steps:
        raise DataError("E14", "sequence_plan", "empty. Drop the row or fill it.")
    parts = tuple(part for i, step in enumerate(steps) for part in _step(step, f"sequence_plan[{i}]", texts))
    texts.boxes.check_used()
    if not parts:
        raise DataError("E14", "sequence_plan", "no step has content. Drop the row or fill it.")
    return reading.record(fields, "ilvr", [question, Message("assistant", parts)], answer=answer, side=side)


def _step(step: object, at: str, texts: chats.Texts) -> list[Part]:
    if not isinstance(step, dict):
        raise DataError("E05", at, f"expected an object, found {TYPES[type(step)]}. See the format table.")
    kind = get(step, "type", str, at=at + ".")
    if kind == "latent":
        if step.get("helper_image") is None:
            raise DataError("E05", at + ".helper_image", "missing, expected a path. See the format table.")
        return [Sketch(texts.fields.load(step["helper_image"], at + ".helper_image"))]
    if kind != "text":
        raise DataError("E06", at + ".type", f"'{kind[:40]}' is no step type. Use text or latent.")
    text = get(step, "content", str, at=at + ".")
    text = texts.clean(text, at + ".content", "assistant")
    return [Text(checked_text(text, at + ".content"))] if text.strip() else []
