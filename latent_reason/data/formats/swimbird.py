"""SwimBird-SFT (arXiv 2602.06040): ``conversations`` of human and gpt, images of both roles, ``answer``.

``<image>`` in a human turn is the next entry of ``image``, in a gpt turn the next entry of ``reasoning_image``. All
turns are kept; SwimBird's own loader keeps only the last two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from ...trace import Sketch, Trace
from .. import answers, chats, reading, writing
from ..answers import THOUGHT
from ..chats import Turn
from ..errors import DataError, Report
from ..pictures import Limits
from ..places import ImageRoots
from ..reading import Fields
from ..writing import Target

REQUIRED = {"conversations", "reasoning_image"}
SIDES = {"user": ("image", "human turns"), "assistant": ("reasoning_image", "gpt turns")}


def read(
    source: str | Path,
    image_root: ImageRoots = None,
    report: Report | None = None,
    limits: Limits | None = None,
    *,
    answer: str = "refuse",
    unplaced_image: str = "first",
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace. ``THOUGHT n:`` is left out, as by SwimBird's own loader.

    ``answer``: which side is right if the column ``answer`` and the boxed answer differ (refuse, field or text).
    ``unplaced_image``: what happens to images without any ``<image>`` (first, drop or refuse). Errors: E10 number of
    images, E14 empty text or answer, E17 two answers, E19 order of turns.
    """
    answers.check_side(answer)
    chats.check_options(unplaced_image)
    convert = partial(trace, side=answer, unplaced_image=unplaced_image)
    return reading.read(source, convert, image_root, report, limits)


def trace(fields: Fields, side: str, unplaced_image: str) -> Trace:
    """Convert one row."""
    signs = {"user": chats.IMAGE, "assistant": chats.IMAGE}
    turns = chats.turns(fields, chats.entries(fields, "conversations"), signs)
    pictures = {"user": fields.pictures("image"), "assistant": fields.pictures("reasoning_image", Sketch)}
    for role, (key, where) in SIDES.items():
        turns = chats.place_images(fields, turns, len(pictures[role]), key, unplaced_image, where)
    messages = chats.messages(fields, map(_without_numbers, turns), pictures)
    answer = fields.answer("answer") if fields.has("answer") else None
    return reading.record(fields, "swimbird", messages, id=fields.name("id"), answer=answer, side=side)


def _without_numbers(turn: Turn) -> Turn:
    """The turn without ``THOUGHT n:`` at the beginning of its lines."""
    if turn.role != "assistant":
        return turn
    pieces = [p._replace(value=THOUGHT.sub("", p.value)) if p.kind == "text" else p for p in turn.pieces]
    return turn._replace(pieces=[piece for piece in pieces if piece.kind != "text" or piece.value.strip()])


def write(traces: Iterable[Trace], folder: str | Path, lossy: bool = False, report: Report | None = None) -> Path:
    """Write ``data.json`` and images to a new folder. Errors and losses: see ``writing.write``."""
    return writing.write(traces, folder, "data.json", row, lossy, report)


def row(trace: Trace, target: Target) -> dict:
    """The row of a trace."""
    turns = target.chat(trace, system=False)
    pictures = {
        key: [target.add_image(part) for message in turns if message.role == role for part in writing.pictures(message)]
        for role, (key, _) in SIDES.items()
    }
    conversation = [
        {"from": "human" if message.role == "user" else "gpt", "value": writing.join_parts(message)}
        for message in turns
    ]
    answer = {} if trace.answer is None else {"answer": trace.answer}
    return {"id": trace.id, "conversations": conversation, **pictures, **answer, **writing.extra_column(trace)}
