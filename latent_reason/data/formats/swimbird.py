"""SwimBird-SFT (arXiv 2602.06040): ``conversations`` of human and gpt, images of both roles, ``answer``.

``<image>`` in a human turn is the next entry of ``image``, in a gpt turn the next entry of ``reasoning_image``. All
turns are kept; SwimBird's own loader keeps only the last two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ...trace import Message, Sketch, Trace
from .. import reading, writing
from ..errors import DataError, Report
from ..pictures import Limits
from ..reading import Fields
from ..writing import Target

SIDES = {"user": ("image", "human turns"), "assistant": ("reasoning_image", "gpt turns")}


def read(
    source: str | Path, image_root: str | Path | None = None, report: Report | None = None, limits: Limits | None = None
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace. Errors: E10 number of images, E14 empty text or answer, E19 order of turns."""
    return reading.read(source, trace, image_root, report, limits)


def trace(fields: Fields) -> Trace:
    """Convert one row."""
    turns = reading.turns(fields, "conversations", roles={"human": "user", "gpt": "assistant"})
    pictures = {"user": fields.pictures("image"), "assistant": fields.pictures("reasoning_image", Sketch)}
    for role, (key, where) in SIDES.items():
        num_signs = sum(turn.text.count("<image>") for turn in turns if turn.role == role)
        reading.check_counts(num_signs, "<image>", where, len(pictures[role]), key, "conversations")
    remaining = {role: iter(images) for role, images in pictures.items()}
    messages = [
        Message(turn.role, tuple(reading.insert_images(turn.text, turn.field, "<image>", remaining[turn.role])))
        for turn in turns
    ]
    answer = fields.filled("answer") if "answer" in fields.values else None
    return reading.record(fields, "swimbird", messages, id=fields.name("id"), answer=answer)


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
