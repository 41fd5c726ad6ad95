"""LVR (arXiv 2509.24251): LLaVA rows whose answers hold ``<lvr>``, a region of the first picture, as of ``bboxes``.

Rows of the second stage (reinforcement learning) have neither signs nor boxes. A file of ``data_path``,
``image_folder`` and ``ds_name`` lists such files; it is read as well, its paths relative to its own folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL.Image import Image as Picture

from ...trace import Message, Sketch, Trace
from .. import reading
from ..errors import DataError, Report
from ..jsonl import decode, elements
from ..pictures import Limits
from ..reading import Fields, Turn
from ..record import box

SIGN = "<lvr>"


def read(
    source: str | Path,
    image_root: str | Path | None = None,
    report: Report | None = None,
    limits: Limits | None = None,
    *,
    box_unit: str = "share",
) -> Iterator[Trace | DataError]:
    """Every row as a Trace, each ``<lvr>`` a redundant sketch cut from the first picture.

    ``box_unit``: share (0-1 of width and height) or pixel. Errors: E10 counts of signs and boxes or pictures, E15 a box
    that is none, E19 the order of turns.
    """
    if box_unit not in ("share", "pixel"):
        raise ValueError(f"no box unit '{box_unit}'. Use share or pixel.")
    made = partial(trace, box_unit=box_unit)
    if listed := _listed(Path(source), image_root):
        return reading.read_files(listed, Path(source).parent, made, report, limits)
    return reading.read(source, made, image_root, report, limits)


def _listed(source: Path, image_root: str | Path | None) -> list[tuple[Path, Path]]:
    """(file, folder of its pictures) of a file that lists others; nothing of one that holds rows."""
    if source.suffix != ".json" or not source.is_file():
        return []
    found, root = [], Path(source.parent if image_root is None else image_root)
    for number, data in elements(source):
        try:
            value = decode(data)
        except DataError:
            return []  # read as rows it says what is wrong
        if not isinstance(value, dict) or not isinstance(value.get("data_path"), str):
            return []
        pictures = root / str(value.get("image_folder") or ".")
        if not Path(os.path.realpath(pictures)).is_relative_to(os.path.realpath(root)):
            raise DataError("E08", "image_folder", "leaves the data folder. Move the pictures inside it.").at(
                str(source), number
            )
        found.append((source.parent / value["data_path"], pictures))
    return found


def trace(fields: Fields, box_unit: str) -> Trace:
    turns = reading.turns(fields, "conversations")
    pictures = fields.pictures("image")
    boxes = fields.get("bboxes", list, optional=True) or []
    reading.check_counts(_count(turns, "assistant", SIGN), SIGN, "gpt turns", len(boxes), "bboxes", "conversations")
    if boxes and not pictures:
        raise DataError("E10", "image", "no picture that the boxes could lie in. Add it.")
    regions = iter([_region(pictures[0].image, box_unit, one, f"bboxes[{i}]") for i, one in enumerate(boxes)])
    signs, messages = _count(turns, "user", "<image>"), []
    if signs:
        reading.check_counts(signs, "<image>", "human turns", len(pictures), "image", "conversations")
    left, shown = iter(pictures if signs else ()), () if signs else tuple(pictures)
    for turn in turns:
        if turn.role == "assistant":
            told = reading.filled_in(reading.box_answers(turn.text, turn.field), turn.field, SIGN, regions)
            messages.append(Message("assistant", tuple(told)))
            continue
        before = shown if turn.role == "user" else ()
        shown = shown if turn.role == "system" else ()
        parts = reading.filled_in(turn.text, turn.field, "<image>" if signs else "", left)
        messages.append(Message(turn.role, (*before, *parts)))
    name = fields.name("id") or fields.name("question_id")
    source = fields.name("dataset")
    return reading.record(
        fields,
        "lvr",
        messages,
        id="-".join(filter(None, [source, name])) if name else None,
        task=source,
        split=fields.get("split", str, default="train"),
    )


def _count(turns: list[Turn], role: str, sign: str) -> int:
    return sum(turn.text.count(sign) for turn in turns if turn.role == role)


def _region(picture: Picture, unit: str, given: object, field: str) -> Sketch:
    """The part of ``picture`` in a box, at least a pixel. Raises DataError (E15) for what is no box."""
    width, height = picture.size
    size = (width, height, width, height)
    if unit == "pixel" and isinstance(given, list) and len(given) == 4 and all(type(x) in (int, float) for x in given):
        given = [x / side for x, side in zip(given, size, strict=True)]
    shares = box(given, field)
    if shares is None:
        raise DataError("E15", field, "expected 4 numbers [x0, y0, x1, y1]. Correct or drop it.")
    x0, y0, x1, y1 = (round(share * side) for share, side in zip(shares, size, strict=True))
    x0, y0 = min(x0, width - 1), min(y0, height - 1)
    return Sketch(picture.crop((x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))), redundant=True, box=shares)
