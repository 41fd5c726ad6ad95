"""SwimBird-SFT (arXiv 2602.06040): ``conversations`` of human and gpt, pictures of both sides, ``answer``.

``<image>`` in a human turn is the next of ``image``, in a gpt turn the next of ``reasoning_image``. All turns are kept,
where the source's loader keeps the last two.
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
    """Every row as a Trace. Errors: E10 counts of a side, E14 an empty text or answer, E19 the order of turns."""
    return reading.read(source, trace, image_root, report, limits)


def trace(fields: Fields) -> Trace:
    turns = reading.turns(fields, "conversations", roles={"human": "user", "gpt": "assistant"})
    pictures = {"user": fields.pictures("image"), "assistant": fields.pictures("reasoning_image", Sketch)}
    for role, (key, where) in SIDES.items():
        found = sum(turn.text.count("<image>") for turn in turns if turn.role == role)
        reading.check_counts(found, "<image>", where, len(pictures[role]), key, "conversations")
    left = {role: iter(found) for role, found in pictures.items()}
    messages = [
        Message(turn.role, tuple(reading.filled_in(turn.text, turn.field, "<image>", left[turn.role])))
        for turn in turns
    ]
    answer = fields.filled("answer") if "answer" in fields.values else None
    return reading.record(fields, "swimbird", messages, id=fields.name("id"), answer=answer)


def write(traces: Iterable[Trace], folder: str | Path, lossy: bool = False, report: Report | None = None) -> Path:
    """A new folder of ``data.json`` and pictures. Errors and losses: see ``writing.write``."""
    return writing.write(traces, folder, "data.json", row, lossy, report)


def row(trace: Trace, target: Target) -> dict:
    turns = target.chat(trace, system=False)
    pictures = {
        key: [target.picture(part) for message in turns if message.role == role for part in writing.pictures(message)]
        for role, (key, _) in SIDES.items()
    }
    said = [
        {"from": "human" if message.role == "user" else "gpt", "value": writing.spelled(message)} for message in turns
    ]
    answer = {} if trace.answer is None else {"answer": trace.answer}
    return {"id": trace.id, "conversations": said, **pictures, **answer, **writing.own(trace)}
