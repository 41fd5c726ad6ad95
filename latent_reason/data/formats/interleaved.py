"""Interleaved texts and images: three public layouts of one question and one solution with images in its text.

Latent Sketchpad (arXiv 2510.24514): ``input_text`` and ``label_text`` with ``<image>`` at each entry of ``input_img`` and
``label_img``. MathCanvas (arXiv 2510.14958): ``question_interleave`` and ``solution_interleave``, lists of text and image
items, with ``question_images`` and ``solution_images``. ThinkMorph as published (arXiv 2510.27492): ``question``,
``answer`` and the numbered columns ``problem_image_0``, ``resoning_thought_0`` (so spelled), ``reasoning_image_0``, ...
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ...trace import Image, Message, Part, Sketch, Text, Trace
from .. import answers, chats, reading
from ..errors import DataError, Report
from ..pictures import Limits
from ..places import ImageRoots
from ..reading import Fields
from ..record import TYPES, checked_text, get

REQUIRED = {"input_text", "label_text"}
NUMBERED = re.compile(r"(problem_image|reasoning_image|rea?soning_thought)_(\d{1,4})")
OPTIONS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def read(
    source: str | Path,
    image_root: ImageRoots = None,
    report: Report | None = None,
    limits: Limits | None = None,
    *,
    answer: str = "refuse",
    unplaced_image: str = "first",
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace. Every image of the solution becomes a sketch at its place.

    ``answer``: which side is right if the column ``answer`` and the boxed answer differ (refuse, field or text).
    ``unplaced_image``: what happens to images without any ``<image>`` (first, drop or refuse). Errors: E05 none of the
    three layouts, E10 numbers of places and images differ, E14 empty text, E17 two answers.
    """
    answers.check_side(answer)
    chats.check_options(unplaced_image)
    convert = partial(trace, side=answer, unplaced_image=unplaced_image)
    return reading.read(source, convert, image_root, report, limits)


def trace(fields: Fields, side: str, unplaced_image: str) -> Trace:
    """Convert one row."""
    chats.refuse_media(fields)
    if fields.has("question_interleave"):
        return _lists(fields, side)
    if not fields.has("input_text") and has_columns(fields):
        return numbered_columns(fields, side, "interleaved")
    chat = [
        ({"role": "user", "content": fields.filled("input_text")}, "input_text"),
        ({"role": "assistant", "content": fields.filled("label_text")}, "label_text"),
    ]
    turns = chats.turns(fields, chat, {"user": chats.IMAGE, "assistant": chats.IMAGE})
    pictures = {"user": fields.pictures("input_img"), "assistant": fields.pictures("label_img", Sketch)}
    for role, key, where in (("user", "input_img", "human turns"), ("assistant", "label_img", "gpt turns")):
        turns = chats.place_images(fields, turns, len(pictures[role]), key, unplaced_image, where)
    messages = chats.messages(fields, turns, pictures)
    return reading.record(
        fields, "interleaved", messages, id=fields.name("id"), answer=fields.optional_answer("answer"), side=side
    )


# -- MathCanvas --------------------------------------------------------------------------------------------------------
def _lists(fields: Fields, side: str) -> Trace:
    texts = chats.Texts(fields)
    question = _items(texts, "question_interleave", "question_images", Image)
    if options := fields.get("options", list, optional=True):
        lines = [f"{letter}. {option}" for letter, option in zip(OPTIONS, options, strict=False)]
        question.append(Text(checked_text("\n" + "\n".join(lines), "options")))
    if not fields.values.get("solution_interleave"):  # the benchmark
        messages, split = [Message("user", tuple(question))], "test"
    else:
        solution = _items(texts, "solution_interleave", "solution_images", Sketch)
        messages, split = [Message("user", tuple(question)), Message("assistant", tuple(solution))], "train"
    texts.boxes.check_used()
    return reading.record(
        fields,
        "interleaved",
        messages,
        id=fields.name("id"),
        answer=fields.optional_answer("answer"),
        side=side,
        split=split,
    )


def _items(texts: chats.Texts, key: str, images: str, kind: type[Image] | type[Sketch]) -> list[Part]:
    """The parts of a list of items. An image item is the image of its index, or the next one."""
    items = [_checked(item, f"{key}[{i}]") for i, item in enumerate(texts.fields.get(key, list))]
    pictures = texts.fields.pictures(images, kind)
    indices = [item.get("index") for item in items if item["type"] == "image"]
    in_order = iter(reading.in_order(indices, "image items", key, len(pictures), images, key))
    parts: list[Part] = []
    for i, item in enumerate(items):
        if item["type"] == "image":
            parts.append(pictures[next(in_order)])
            continue
        at = f"{key}[{i}].content"
        text = get(item, "content", str, at=f"{key}[{i}].")
        text = texts.clean(text, at, "user" if kind is Image else "assistant")
        if text.strip():
            parts.append(Text(checked_text(text, at)))
    if not parts:
        raise DataError("E14", key, "empty. Drop the row or fill it.")
    return parts


def _checked(item: object, at: str) -> dict:
    if not isinstance(item, dict):
        raise DataError("E05", at, f"expected an object, found {TYPES[type(item)]}. See the format table.")
    kind = get(item, "type", str, at=at + ".")
    if kind not in ("text", "image"):
        raise DataError("E06", at + ".type", f"'{kind[:40]}' is no item type. Use text or image.")
    return item


# -- ThinkMorph as published -------------------------------------------------------------------------------------------
def has_columns(fields: Fields) -> bool:
    """Whether the row has a numbered column for each thought and image."""
    return fields.has("question") and any(NUMBERED.fullmatch(key) and fields.has(key) for key in fields.values)


def numbered_columns(fields: Fields, side: str, source: str) -> Trace:
    """Convert a row with a numbered column for each thought and image. Thought n stands before image n."""
    columns = sorted(
        (int(match[2]), "image" in match[1], match[1] == "problem_image", key)
        for key in fields.values
        if (match := NUMBERED.fullmatch(key))
    )
    texts = chats.Texts(fields)
    asked = texts.clean(fields.filled("question"), "question", "user")
    images: list[Part] = []
    solution: list[Part] = []
    for _, is_image, is_problem, key in columns:
        if is_image:
            (images if is_problem else solution).extend(fields.pictures(key, Image if is_problem else Sketch))
        elif (text := fields.get(key, str, optional=True)) and (text := texts.clean(text, key, "assistant")).strip():
            solution.append(Text(checked_text(text, key)))
    texts.boxes.check_used()
    if not solution:
        raise DataError("E14", "reasoning", "no thought and no image. Drop the row or fill it.")
    question = reading.place_question(asked, "question", images, "problem_image_N")
    messages = [question, Message("assistant", tuple(solution))]
    return reading.record(
        fields,
        source,
        messages,
        id=fields.name("pid") or fields.name("id"),
        answer=fields.optional_answer("answer"),
        side=side,
    )
