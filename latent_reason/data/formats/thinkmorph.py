"""ThinkMorph (arXiv 2510.27492), the layout of Bagel: lists of images, questions and alternating output texts.

A text that ends with ``<image_start>`` is followed by the next image and by a text that begins with ``<image_end>``.
Images of the question are first in the list. The set on the Hub has a numbered column for each thought and image (see
interleaved.py). Bagel's understanding set is in the LLaVA format.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ...trace import Image, Message, Part, Sketch, Text, Trace
from .. import answers, chats, reading
from ..errors import DataError, Report
from ..pictures import Limits
from ..places import ImageRoots
from ..reading import Fields
from ..record import TYPES, checked_text
from . import interleaved

REQUIRED = {"image_list", "instruction_list", "output_text_list"}
START, END = "<image_start>", "<image_end>"


def read(
    source: str | Path,
    image_root: ImageRoots = None,
    report: Report | None = None,
    limits: Limits | None = None,
    *,
    answer: str = "refuse",
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace. ``<think>`` tags are dropped, ``<answer>`` becomes a boxed answer.

    ``answer``: which side is right if the column ``answer`` and the boxed answer differ (refuse, field or text).
    Errors: E05 unpaired signs, E10 too few images for the texts, E14 no ``<answer>`` or an empty text, E17 two answers.
    """
    answers.check_side(answer)
    return reading.read(source, partial(trace, side=answer), image_root, report, limits)


def trace(fields: Fields, side: str) -> Trace:
    """Convert one row."""
    if not fields.has("instruction_list") and interleaved.has_columns(fields):
        return interleaved.numbered_columns(fields, side, "thinkmorph")
    questions, texts = _texts(fields, "instruction_list"), _texts(fields, "output_text_list")
    images, cleaner = fields.references("image_list"), chats.Texts(fields)
    asked = cleaner.clean(questions[0], "instruction_list[0]", "user") if questions else ""
    num_inputs = len(images) - len(texts) + 1
    if num_inputs < 1:
        raise DataError(
            "E10",
            "image_list",
            f"{len(images)} for {len(texts)} texts, expected {len(texts)} or more: "
            "those of the question and one between two texts. Counts must match.",
        )
    if len(questions) != 1:
        raise DataError("E10", "instruction_list", f"{len(questions)} questions, expected 1. Make a row of each.")
    loaded = [fields.load(image, f"image_list[{i}]") for i, image in enumerate(images)]
    parts: list[Part] = []
    for i, text in enumerate(texts):
        at = f"output_text_list[{i}]"
        content = _without_signs(text, at, first=not i, last=i == len(texts) - 1)
        content = cleaner.clean(content, at, "assistant").strip()
        if i:
            parts.append(Sketch(loaded[num_inputs + i - 1]))
        if content:
            parts.append(Text(checked_text(content, at)))
    if "<answer>" not in texts[-1].lower():
        raise DataError("E14", f"output_text_list[{len(texts) - 1}]", "no <answer>. Add it, or drop the row.")
    cleaner.boxes.check_used()
    question = Message(
        "user",
        (*(Image(picture) for picture in loaded[:num_inputs]), Text(checked_text(asked, "instruction_list[0]"))),
    )
    messages = [question, Message("assistant", tuple(parts))]
    answer = fields.optional_answer("answer")
    return reading.record(fields, "thinkmorph", messages, id=fields.name("id"), answer=answer, side=side)


def _texts(fields: Fields, key: str) -> list[str]:
    texts = fields.get(key, list)
    if not texts:
        raise DataError("E14", key, "empty. Drop the row or fill it.")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(
                "E05", f"{key}[{i}]", f"expected a string, found {TYPES[type(text)]}. See the format table."
            )
        if not text.strip():
            raise DataError("E14", f"{key}[{i}]", "empty. Drop the row or fill it.")
    return texts


def _without_signs(text: str, at: str, first: bool, last: bool) -> str:
    """The text between the signs. Only the first text has no leading sign and only the last no trailing sign."""
    text = text.strip()
    if text.startswith(END) == first or text.endswith(START) == last:
        raise DataError(
            "E05",
            at,
            f"{START} and {END} are not paired. Every text but the last ends in {START}, every "
            f"text but the first begins with {END}.",
        )
    return text.removeprefix(END).removesuffix(START)
