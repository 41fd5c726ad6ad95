"""LLaVA (arXiv 2304.08485): ``conversations`` of human and gpt, ``image`` a path or a list, ``<image>`` in the text.

The format has no sketches. Bagel's understanding set also uses it. Text-only rows may omit ``image``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from ...trace import Trace
from .. import chats, reading, writing
from ..errors import DataError, Report
from ..pictures import Limits
from ..places import ImageRoots
from ..reading import Fields
from ..writing import Target

REQUIRED = {"conversations"}
NAMES = {"system": "system", "user": "human", "assistant": "gpt"}


def read(
    source: str | Path,
    image_root: ImageRoots = None,
    report: Report | None = None,
    limits: Limits | None = None,
    *,
    unplaced_image: str = "first",
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace of mode text (text before the boxed answer) or direct.

    ``unplaced_image``: what happens to images without any ``<image>`` (first, drop or refuse). Errors: E07 missing
    image, E10 numbers of signs and images differ, E19 order of turns.
    """
    chats.check_options(unplaced_image)
    return reading.read(source, partial(trace, unplaced_image=unplaced_image), image_root, report, limits)


def trace(fields: Fields, unplaced_image: str) -> Trace:
    """Convert one row."""
    turns = chats.turns(fields, chats.entries(fields, "conversations"), {"user": chats.IMAGE})
    key = chats.image_column(fields, "image", "images")
    pictures = fields.pictures(key)
    turns = chats.place_images(fields, turns, len(pictures), key, unplaced_image, "human turns")
    messages = chats.messages(fields, turns, {"user": pictures})
    return reading.record(fields, "llava", messages, id=fields.name("id"))


def write(traces: Iterable[Trace], folder: str | Path, lossy: bool = False, report: Report | None = None) -> Path:
    """Write ``data.json`` and images to a new folder. Sketches are dropped. Errors: see ``writing.write``."""
    return writing.write(traces, folder, "data.json", row, lossy, report)


def row(trace: Trace, target: Target) -> dict:
    """The row of a trace."""
    trace = writing.without_sketches(trace, target)
    turns = target.chat(trace, system=True)
    paths = [target.add_image(part) for message in turns for part in writing.pictures(message)]
    conversation = [{"from": NAMES[message.role], "value": writing.join_parts(message)} for message in turns]
    image = {"image": paths if len(paths) > 1 else paths[0]} if paths else {}
    return {"id": trace.id, **image, "conversations": conversation, **writing.extra_column(trace)}
