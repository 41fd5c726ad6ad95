"""LVR (arXiv 2509.24251): LLaVA rows whose answers contain ``<lvr>`` for the regions ``bboxes`` of the first image.

Rows of the second stage (reinforcement learning) have neither signs nor boxes. A file with entries of ``data_path``,
``image_folder`` and ``ds_name`` lists several such files; its paths are relative to its own folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ...trace import Trace
from .. import chats, reading
from ..errors import DataError, Report
from ..jsonl import decode, elements
from ..pictures import Limits
from ..places import ImageRoots, Places, list_roots
from ..reading import Fields
from ..regions import crop

REQUIRED = {"conversations", "bboxes"}
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

    ``box_unit``: share (0-1 of width and height) or pixel. A box that leaves the image by at most 5 % of a side is cut,
    as LVR's own loader does. Errors: E10 numbers of signs and boxes or images differ,
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
    turns = chats.turns(fields, chats.entries(fields, "conversations"), {"user": chats.IMAGE, "assistant": SIGN})
    pictures = fields.pictures("image")
    boxes = fields.get("bboxes", list, optional=True) or []
    turns = chats.place_images(fields, turns, len(boxes), "bboxes", "refuse", "gpt turns", SIGN)
    if boxes and not pictures:
        raise DataError("E10", "image", "no image for the boxes. Add it.")
    if boxes and len(pictures) > 1:
        raise DataError("E15", "bboxes", f"boxes of one of {len(pictures)} images. Keep the image that they belong to.")
    regions = [
        crop(pictures[0].image, box_unit, value, f"bboxes[{i}]", fields.row.warn) for i, value in enumerate(boxes)
    ]
    if not any(turn.num_places for turn in turns if turn.role == "user"):  # as in the second stage
        turns = chats.place_first(turns, len(pictures))
    turns = chats.place_images(fields, turns, len(pictures), "image", "refuse", "human turns")
    messages = chats.messages(fields, turns, {"user": pictures, "assistant": regions})
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
