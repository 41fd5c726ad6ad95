"""ILVR (arXiv 2512.05665): JSON lines with a question and a ``sequence_plan`` of texts and helper images.

Test rows have ``original_final_answer`` or a map as in Mirage. Rows of older tasks are in the Mirage format.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...trace import Message, Part, Sketch, Text, Trace
from .. import reading
from ..errors import DataError, Report
from ..pictures import Limits
from ..reading import Fields
from ..record import TYPES, checked_text, get
from . import mirage


def read(
    source: str | Path, image_root: str | Path | None = None, report: Report | None = None, limits: Limits | None = None
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace. Errors: E05 latent without an image, E06 unknown step type, E14 empty text."""
    return reading.read(source, trace, image_root, report, limits)


def trace(fields: Fields) -> Trace:
    """Convert one row."""
    if "sequence_plan" not in fields.values and "original_final_answer" not in fields.values:
        return mirage.trace(fields, "ilvr")
    question = reading.question(fields, fields.filled("text_input"), "text_input", "image_input")
    answer = fields.filled("original_final_answer") if "original_final_answer" in fields.values else None
    if "sequence_plan" not in fields.values:
        return reading.record(fields, "ilvr", [question], answer=answer, split="test")
    steps = fields.get("sequence_plan", list)
    if not steps:
        raise DataError("E14", "sequence_plan", "empty. Drop the row or fill it.")
    parts = tuple(_step(step, f"sequence_plan[{i}]", fields) for i, step in enumerate(steps))
    return reading.record(fields, "ilvr", [question, Message("assistant", parts)], answer=answer)


def _step(step: object, at: str, fields: Fields) -> Part:
    if not isinstance(step, dict):
        raise DataError("E05", at, f"expected an object, found {TYPES[type(step)]}. See the format table.")
    kind = get(step, "type", str, at=at + ".")
    if kind == "latent":
        return Sketch(fields.row.load(get(step, "helper_image", str, at=at + "."), at + ".helper_image"))
    if kind != "text":
        raise DataError("E06", at + ".type", f"'{kind[:40]}' is no step type. Use text or latent.")
    text = get(step, "content", str, at=at + ".")
    if not text.strip():
        raise DataError("E14", at + ".content", "empty. Drop the step or fill it.")
    return Text(checked_text(text, at + ".content"))
