"""LVR (arXiv 2509.24251): LLaVA rows whose answers contain ``<lvr>`` for the regions ``bboxes`` of the first image.

Rows of the second stage (reinforcement learning) have neither signs nor boxes. A file with entries of ``data_path``,
``image_folder`` and ``ds_name`` lists several such files; its paths are relative to its own folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL.Image import Image as Picture

from ...trace import Message, Sketch, Trace
from .. import reading
from ..errors import DataError, Report
from ..jsonl import decode, elements
from ..pictures import Limits
from ..places import ImageRoots, Places, list_roots
from ..reading import Fields, Turn
from ..record import box

SIGN = "<lvr>"


def read(
    source: str | Path,
    image_root: ImageRoots = None,
    report: Report | None = None,
    limits: Limits | None = None,
    *,
    box_unit: str = "share",
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace. Each ``<lvr>`` becomes a redundant sketch, cropped from the first image.

    ``box_unit``: share (0-1 of width and height) or pixel. Errors: E10 numbers of signs and boxes or images differ,
    E15 invalid box, E19 order of turns.
    """
    if box_unit not in ("share", "pixel"):
        raise ValueError(f"unknown box unit '{box_unit}'. Use share or pixel.")
    convert = partial(trace, box_unit=box_unit)
    named = list_roots(image_root)
    if listed := _listed(Path(source), named):
        return reading.read_files(listed, Path(source).parent, convert, report, limits, named)
    return reading.read(source, convert, image_root, report, limits)


def _listed(source: Path, named: list[Path]) -> list[tuple[Path, Path]]:
    """(file, image folder) pairs of a file that lists other files; empty for a file of rows."""
    if source.suffix != ".json" or not source.is_file():
        return []
    files, roots, places = [], [*named, source.parent], Places(source.parent, named)
    for number, data in elements(source):
        try:
            value = decode(data)
        except DataError:
            return []  # the error is reported when the file is read as rows
        if not isinstance(value, dict) or not isinstance(value.get("data_path"), str):
            return []
        name = str(value.get("image_folder") or ".")
        pictures = next((root / name for root in roots if (root / name).is_dir()), roots[0] / name)
        if not places.contains(pictures / "image"):
            raise DataError("E08", "image_folder", "leaves the data folder. Move the images inside it.").at(
                str(source), number
            )
        files.append((source.parent / value["data_path"], pictures))
    return files


def trace(fields: Fields, box_unit: str) -> Trace:
    """Convert one row."""
    turns = reading.turns(fields, "conversations")
    pictures = fields.pictures("image")
    boxes = fields.get("bboxes", list, optional=True) or []
    reading.check_counts(_count(turns, "assistant", SIGN), SIGN, "gpt turns", len(boxes), "bboxes", "conversations")
    if boxes and not pictures:
        raise DataError("E10", "image", "no image for the boxes. Add it.")
    regions = iter([_region(pictures[0].image, box_unit, value, f"bboxes[{i}]") for i, value in enumerate(boxes)])
    signs, messages = _count(turns, "user", "<image>"), []
    if signs:
        reading.check_counts(signs, "<image>", "human turns", len(pictures), "image", "conversations")
    remaining, leading = iter(pictures if signs else ()), () if signs else tuple(pictures)
    for turn in turns:
        if turn.role == "assistant":
            parts = reading.insert_images(reading.box_answers(turn.text, turn.field), turn.field, SIGN, regions)
            messages.append(Message("assistant", tuple(parts)))
            continue
        before = leading if turn.role == "user" else ()
        leading = leading if turn.role == "system" else ()
        parts = reading.insert_images(turn.text, turn.field, "<image>" if signs else "", remaining)
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


def _region(picture: Picture, unit: str, value: object, field: str) -> Sketch:
    """Crop a box of at least one pixel from ``picture``. Raises DataError (E15) for an invalid box."""
    width, height = picture.size
    size = (width, height, width, height)
    if unit == "pixel" and isinstance(value, list) and len(value) == 4 and all(type(x) in (int, float) for x in value):
        value = [x / side for x, side in zip(value, size, strict=True)]
    corners = box(value, field)
    if corners is None:
        raise DataError("E15", field, "expected 4 numbers [x0, y0, x1, y1]. Correct or drop it.")
    x0, y0, x1, y1 = (round(share * side) for share, side in zip(corners, size, strict=True))
    x0, y0 = min(x0, width - 1), min(y0, height - 1)
    return Sketch(picture.crop((x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))), redundant=True, box=corners)
