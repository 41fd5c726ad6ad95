"""LLaVA (arXiv 2304.08485): ``conversations`` of human and gpt, ``image`` a path or a list, ``<image>`` in the text.

It has no sketches. Also the understanding set of Bagel. Rows of words alone may leave ``image`` out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ...trace import Message, Trace
from .. import reading, writing
from ..errors import DataError, Report
from ..pictures import Limits
from ..reading import Fields
from ..writing import Target

NAMES = {ours: theirs for theirs, ours in reading.ROLES.items()}


def read(
    source: str | Path, image_root: str | Path | None = None, report: Report | None = None, limits: Limits | None = None
) -> Iterator[Trace | DataError]:
    """Every row as a Trace of mode text (words before a box) or direct.

    Errors: E07 a missing picture, E10 counts of signs and pictures, E19 the order of turns.
    """
    return reading.read(source, trace, image_root, report, limits)


def trace(fields: Fields) -> Trace:
    turns, pictures = reading.turns(fields, "conversations"), fields.pictures("image")
    found = sum(turn.text.count("<image>") for turn in turns if turn.role == "user")
    reading.check_counts(found, "<image>", "human turns", len(pictures), "image", "conversations")
    left = iter(pictures)
    messages = [
        Message(
            turn.role, tuple(reading.filled_in(turn.text, turn.field, "<image>" if turn.role == "user" else "", left))
        )
        for turn in turns
    ]
    return reading.record(fields, "llava", messages, id=fields.name("id"))


def write(traces: Iterable[Trace], folder: str | Path, lossy: bool = False, report: Report | None = None) -> Path:
    """A new folder of ``data.json`` and pictures; sketches are a loss. Errors: see ``writing.write``."""
    return writing.write(traces, folder, "data.json", row, lossy, report)


def row(trace: Trace, target: Target) -> dict:
    trace = writing.without_sketches(trace, target)
    turns = target.chat(trace, system=True)
    paths = [target.picture(part) for message in turns for part in writing.pictures(message)]
    said = [{"from": NAMES[message.role], "value": writing.spelled(message)} for message in turns]
    image = {"image": paths if len(paths) > 1 else paths[0]} if paths else {}
    return {"id": trace.id, **image, "conversations": said, **writing.own(trace)}
