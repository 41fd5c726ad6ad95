"""Zebra-CoT (arXiv 2507.16746): ``Question``, ``Text Reasoning Trace``, ``Final Answer`` and one column per image.

The texts refer to image columns: ``<image_start>[problem_image_1]<image_end>``. Images stay at their reference; some
other loaders move the images of the question to its end. In JSON lines, images are paths relative to the image folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...trace import Image, Message, Part, Sketch, Text, Trace
from .. import reading
from ..errors import DataError, Report
from ..pictures import Limits
from ..reading import Fields
from ..record import checked_text

REFERENCE = re.compile(r"<image_start>\[([^\]]{0,64})\]<image_end>")
PICTURE = re.compile(r"(problem|reasoning)_image_\d+")
THOUGHT = re.compile(r"^THOUGHT \d+:[ \t]*", re.MULTILINE)


def read(
    source: str | Path,
    image_root: str | Path | None = None,
    report: Report | None = None,
    limits: Limits | None = None,
    *,
    skip_folder: Iterable[str] = (),
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace; the task is the folder name. ``skip_folder``: skip folders whose name contains this.

    A problem image that the reasoning trace refers to becomes a redundant sketch. Errors: E06 unknown reference, E11
    missing image, E14 empty text.
    """
    return reading.read(source, trace, image_root, report, limits, skip_folder)


def trace(fields: Fields) -> Trace:
    """Convert one row."""
    question, response = (_parts(fields, key, fields.filled(key)) for key in ("Question", "Text Reasoning Trace"))
    answer = fields.filled("Final Answer")
    for key in fields.rest():
        if PICTURE.fullmatch(key) and fields.paths(key):
            fields.row.warn("E12", f"{key}: an image without a reference in the texts is dropped")
    return reading.record(
        fields,
        "zebra_cot",
        [Message("user", question), Message("assistant", response)],
        answer=answer,
        id=fields.name("id"),
        task=fields.row.file.parent.name,
    )


def _parts(fields: Fields, key: str, text: str) -> tuple[Part, ...]:
    # split at a group gives text, name, text, name, ..., text
    return tuple(
        part
        for i, piece in enumerate(REFERENCE.split(text))
        for part in ([_picture(fields, key, piece)] if i % 2 else _text(piece, key))
    )


def _text(piece: str, key: str) -> list[Text]:
    content = THOUGHT.sub("", piece).strip()
    return [Text(checked_text(content, key))] if content else []


def _picture(fields: Fields, key: str, name: str) -> Part:
    kind = PICTURE.fullmatch(name)
    if not kind:
        raise DataError("E06", key, f"names '{name[:40]}'. Use problem_image_N or reasoning_image_N.")
    if key == "Question" and kind[1] == "reasoning":
        raise DataError("E06", key, f"names '{name}', a sketch in the question. Use problem_image_N.")
    path = fields.get(name, str, optional=True)
    if path is None:
        raise DataError("E11", name, "named in the trace, column empty. Fill it or drop the row.")
    picture = fields.row.load(path, name)
    return Image(picture) if key == "Question" else Sketch(picture, redundant=kind[1] == "problem")
