"""Zebra-CoT (arXiv 2507.16746): ``Question``, ``Text Reasoning Trace``, ``Final Answer`` and one column per image.

The texts refer to image columns: ``<image_start>[problem_image_1]<image_end>``. Images stay at their reference; some
other loaders move the images of the question to its end. In JSON lines, images are paths relative to the image folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from ...trace import Image, Message, Part, Sketch, Text, Trace
from .. import answers, chats, reading
from ..answers import THOUGHT
from ..errors import DataError, Report
from ..pictures import Limits
from ..places import ImageRoots
from ..reading import Fields
from ..record import checked_text

REFERENCE = re.compile(r"<image_start>\[([^\]]{0,64})\]<image_end>")
PICTURE = re.compile(r"(problem|reasoning)_image_\d+")
TEXTS = {"Question": "user", "Text Reasoning Trace": "assistant"}
REQUIRED = {"Question", "Text Reasoning Trace"}


def read(
    source: str | Path,
    image_root: ImageRoots = None,
    report: Report | None = None,
    limits: Limits | None = None,
    *,
    skip_folder: Iterable[str] = (),
    answer: str = "refuse",
    unplaced_image: str = "first",
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace; the task is the folder name. ``skip_folder``: skip folders whose name contains this.

    A problem image that the reasoning trace refers to becomes a redundant sketch. ``answer``: which side is right if
    ``Final Answer`` and the boxed answer differ (refuse, field or text). ``unplaced_image``: what happens to images
    that no text refers to: problem images go first, both kinds are dropped, or the row is refused. Errors: E06 unknown
    reference, E11 missing image, E12 image without a reference, E14 empty text, E17 two answers.
    """
    answers.check_side(answer)
    chats.check_options(unplaced_image)
    convert = partial(trace, side=answer, unplaced_image=unplaced_image)
    return reading.read(source, convert, image_root, report, limits, skip_folder)


def trace(fields: Fields, side: str, unplaced_image: str) -> Trace:
    """Convert one row."""
    chats.refuse_media(fields)
    texts = chats.Texts(fields)
    question, response = (_parts(texts, key, role) for key, role in TEXTS.items())
    texts.boxes.check_used()
    question = (*_unplaced(fields, unplaced_image), *question)
    return reading.record(
        fields,
        "zebra_cot",
        [Message("user", question), Message("assistant", response)],
        answer=fields.answer("Final Answer"),
        id=fields.name("id"),
        task=fields.row.file.parent.name,
        side=side,
    )


def _unplaced(fields: Fields, unplaced_image: str) -> list[Part]:
    """The images of the question that no text refers to. Raises DataError (E12) for other images without a reference."""
    parts: list[Part] = []
    for key in sorted(fields.rest(), key=lambda key: (len(key), key)):
        if not (kind := PICTURE.fullmatch(key)) or not fields.references(key):
            continue
        if unplaced_image == "drop":
            fields.row.warn("unplaced", f"{key}: an image without a reference in the texts is dropped")
        elif unplaced_image == "first" and kind[1] == "problem":
            chats.warn_unplaced(fields, key)
            parts += fields.pictures(key)
        else:
            option = "--unplaced-image drop" + " or first" * (kind[1] == "problem")
            raise DataError("E12", key, f"an image without a reference in the texts. Refer to it, or use {option}.")
    return parts


def _parts(texts: chats.Texts, key: str, role: str) -> tuple[Part, ...]:
    text = texts.clean(THOUGHT.sub("", texts.fields.filled(key)), key, role)
    # split at a group gives text, name, text, name, ..., text
    return tuple(
        part
        for i, piece in enumerate(REFERENCE.split(text))
        for part in ([_picture(texts.fields, key, piece)] if i % 2 else _text(piece, key))
    )


def _text(piece: str, key: str) -> list[Text]:
    content = piece.strip()
    return [Text(checked_text(content, key))] if content else []


def _picture(fields: Fields, key: str, name: str) -> Part:
    kind = PICTURE.fullmatch(name)
    if not kind:
        raise DataError("E06", key, f"names '{name[:40]}'. Use problem_image_N or reasoning_image_N.")
    if key == "Question" and kind[1] == "reasoning":
        raise DataError("E06", key, f"names '{name}', a sketch in the question. Use problem_image_N.")
    if len(references := fields.references(name)) != 1:
        raise DataError("E11", name, "named in the trace, column empty. Fill it or drop the row.")
    picture = fields.load(references[0], name)
    return Image(picture) if key == "Question" else Sketch(picture, redundant=kind[1] == "problem")
