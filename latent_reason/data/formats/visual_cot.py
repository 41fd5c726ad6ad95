"""Visual-CoT (arXiv 2403.16999): LLaVA rows whose last images are regions, ``path###[x0, y0, x1, y1]`` in pixels.

A region has an ``<image>`` in a later human turn, after the model has given its box in words. Here it is a sketch of the
answer: the words of the box, the region, the final answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ...trace import Image, Message, Part, Sketch, Trace
from .. import chats, reading
from ..chats import Turn
from ..errors import DataError, Report
from ..pictures import Limits
from ..places import ImageRoots
from ..reading import Fields
from ..regions import crop

REQUIRED = {"conversations"}
SIGN = "###"


def read(
    source: str | Path,
    image_root: ImageRoots = None,
    report: Report | None = None,
    limits: Limits | None = None,
    *,
    box_unit: str = "pixel",
    unplaced_image: str = "first",
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace. Each region becomes a redundant sketch, cropped from the image of its path.

    ``box_unit``: pixel, or share (0-1 of width and height). ``unplaced_image``: what happens to images without any
    ``<image>`` (first, drop or refuse). Errors: E06 a region in the question, E10 numbers of signs and images differ,
    E15 invalid box, E19 order of turns.
    """
    if box_unit not in ("share", "pixel"):
        raise ValueError(f"unknown box unit '{box_unit}'. Use share or pixel.")
    chats.check_options(unplaced_image)
    convert = partial(trace, box_unit=box_unit, unplaced_image=unplaced_image)
    return reading.read(source, convert, image_root, report, limits)


def trace(fields: Fields, box_unit: str, unplaced_image: str) -> Trace:
    """Convert one row."""
    turns = chats.turns(fields, chats.entries(fields, "conversations"), {"user": chats.IMAGE})
    references = fields.references("image")
    images = [_image(fields, reference, f"image[{i}]", box_unit) for i, reference in enumerate(references)]
    turns = chats.place_images(fields, turns, len(images), "image", unplaced_image, "human turns")
    messages = _join(fields, turns, chats.messages(fields, turns, {"user": images}))
    name, source = fields.name("id") or fields.name("question_id"), fields.name("dataset")
    return reading.record(
        fields,
        "visual_cot",
        messages,
        id="-".join(filter(None, [source, name])) if name else None,
        task=source,
        split=fields.get("split", str, default="train"),
    )


def _image(fields: Fields, reference: object, field: str, box_unit: str) -> Image | Sketch:
    """An image, or the region of one."""
    if not isinstance(reference, str) or SIGN not in reference:
        return Image(fields.load(reference, field))
    path, _, corners = reference.rpartition(SIGN)
    try:
        value = json.loads(corners)
    except ValueError:
        raise DataError("E15", field, f"'{corners[:40]}' is no box [x0, y0, x1, y1]. Correct or drop it.") from None
    return crop(fields.load(path, field), box_unit, value, field, fields.row.warn)


def _join(fields: Fields, turns: list[Turn], messages: list[Message]) -> list[Message]:
    """The messages with each human turn of a region as a part of the answer around it."""
    result: list[Message] = []
    for turn, message in zip(turns, messages, strict=True):
        is_region = any(isinstance(part, Sketch) for part in message.content) and message.role == "user"
        if not is_region and not (result and result[-1].role == message.role):
            result.append(message)
            continue
        if is_region and (not result or result[-1].role != "assistant"):
            raise DataError("E06", turn.field, "a region in the question. Its place is after the first answer.")
        if is_region and any(not isinstance(part, Sketch) for part in message.content):
            fields.row.warn("region turn", f"{turn.field}: text and images beside a region are left out")
        kept: tuple[Part, ...] = message.content
        if is_region:
            kept = tuple(part for part in message.content if isinstance(part, Sketch))
        result[-1] = Message("assistant", (*result[-1].content, *kept))
    return result
