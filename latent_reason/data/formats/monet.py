"""Monet-SFT (arXiv 2511.21395): lists of turns with an assistant image at each ``<abs_vis_token></abs_vis_token>``.

The sign is the place of the image, wherever its image part stands. ``<observation>`` marks text that depends on the
preceding image. Monet's loader drops some rows silently. Here, rows with different numbers of signs and images are
errors; rows without an observation are kept with a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ...trace import Message, Part, Sketch, Text, Trace
from .. import answers, chats, reading
from ..chats import Turn
from ..errors import DataError, Report
from ..pictures import Limits
from ..places import ImageRoots
from ..reading import Fields
from ..record import checked_text

REQUIRED = {"data", "metadata"}
SIGN = "<abs_vis_token></abs_vis_token>"
PLACE = re.compile(r"<abs_vis_token>\s*</abs_vis_token>")


def read(
    source: str | Path,
    image_root: ImageRoots = None,
    report: Report | None = None,
    limits: Limits | None = None,
    *,
    observation_loss: float = 1.0,
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace. ``observation_loss`` (0-100) is the loss weight of observation text.

    Errors: E05 observation that is not closed, E10 numbers of signs and images differ, E19 order of turns.
    """
    if not 0 <= observation_loss <= 100:
        raise ValueError(f"observation loss {observation_loss} is out of range. Use a weight in 0-100.")
    return reading.read(source, partial(trace, weight=observation_loss), image_root, report, limits)


def trace(fields: Fields, weight: float) -> Trace:
    """Convert one row."""
    turns = chats.turns(fields, chats.entries(fields, "data"), {})
    messages = [
        _answer(fields, turn, weight) if turn.role == "assistant" else chats.messages(fields, [turn], {})[0]
        for turn in turns
    ]
    if not any("<observation>" in str(turn) for turn in turns):
        fields.row.warn(
            "observation", "no <observation> in this row; it is kept, but the loader of Monet drops such rows"
        )
    metadata = fields.get("metadata", dict, default={})
    source, name = metadata.get("dataset_name"), metadata.get("sample_id")
    id = None if name is None else "-".join(str(part) for part in (source, name) if part is not None)
    return reading.record(fields, "monet", messages, id=id, task=source if isinstance(source, str) else None)


def _answer(fields: Fields, turn: Turn, weight: float) -> Message:
    """The turn with each image at its sign. An observation before the first image is text like any other."""
    pictures = [piece for piece in turn.pieces if piece.kind != "text"]
    num_signs = sum(len(PLACE.findall(piece.value)) for piece in turn.pieces if piece.kind == "text")
    if num_signs != len(pictures):
        raise DataError("E10", turn.field, f"{num_signs} x {SIGN}, {len(pictures)} x image. Counts must match.")
    parts: list[Part] = []
    remaining, is_late = iter(pictures), False
    for piece in turn.pieces:
        if piece.kind != "text":
            continue
        for i, span in enumerate(answers.split_at_tag(piece.value, "observation", piece.field)):
            for j, words in enumerate(PLACE.split(span)):
                if j:
                    picture = next(remaining)
                    parts.append(Sketch(fields.load(picture.value, picture.field)))
                    is_late = True
                if words.strip():
                    parts.append(Text(checked_text(words, piece.field), weight if i % 2 and is_late else turn.loss))
    if not parts:
        raise DataError("E14", turn.field, "empty. Drop the row or fill it.")
    return Message("assistant", tuple(parts))
