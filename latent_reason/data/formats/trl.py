"""TRL chats: ``messages``, or ``prompt`` and ``completion``, of strings or typed parts, with ordered ``images``.

An ``image`` part without content is the next entry of ``images`` (or ``image``). Without ``image`` parts, the images
are placed before the first question.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ...trace import Sketch, Text, Trace
from .. import chats, reading, writing
from ..errors import DataError, Report
from ..pictures import Limits
from ..places import ImageRoots
from ..reading import Fields
from ..writing import Target

REQUIRED = {"messages"}


def read(
    source: str | Path,
    image_root: ImageRoots = None,
    report: Report | None = None,
    limits: Limits | None = None,
    *,
    assistant_image: str = "refuse",
    unplaced_image: str = "first",
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace. ``assistant_image``: meaning of images in assistant turns, sketch or refuse.

    ``unplaced_image``: what happens to images without any ``image`` part (first, drop or refuse). The column
    ``sketch_index`` of our writer lists which ``images`` are sketches. Errors: E05 no content, E06 unknown role or part
    type, or an assistant image, E10 numbers of image parts and images differ, E19 order of turns.
    """
    chats.check_options(unplaced_image, assistant_image)
    convert = partial(trace, assistant_image=assistant_image, unplaced_image=unplaced_image)
    return reading.read(source, convert, image_root, report, limits)


def trace(fields: Fields, assistant_image: str, unplaced_image: str) -> Trace:
    """Convert one row."""
    turns = chats.turns(fields, _chat(fields), {})
    sketches = fields.get("sketch_index", list, default=[])
    places = [turn.role for turn in turns for piece in turn.pieces if piece.kind == "place"]
    of_assistant = [i for i, role in enumerate(places) if role == "assistant"]
    if sketches and sketches != of_assistant:
        raise DataError(
            "E10", "sketch_index", f"{sketches}, but the images of the assistant are {of_assistant}. Correct it."
        )
    key = chats.image_column(fields, "images", "image")
    messages = chats.fill_from_column(fields, turns, key, unplaced_image, assistant_image, sketches, "'image'")
    return reading.record(fields, "trl", messages, id=fields.name("id"))


def _chat(fields: Fields) -> list[tuple[Any, str]]:
    """(turn, field) of every turn of ``messages``, or of ``prompt`` and ``completion``, which may be plain texts."""
    if fields.has("messages") or not fields.has("prompt"):
        return chats.entries(fields, "messages")
    chat: list[tuple[Any, str]] = []
    for key, role in (("prompt", "user"), ("completion", "assistant")):
        if isinstance(fields.values.get(key), str):
            chat.append(({"role": role, "content": fields.get(key, str)}, key))
        else:
            chat += chats.entries(fields, key)
    return chat


def write(traces: Iterable[Trace], folder: str | Path, lossy: bool = False, report: Report | None = None) -> Path:
    """Write ``train.jsonl`` and images to a new folder, sketches as image parts of the assistant.

    ``sketch_index`` lists which ``images`` are sketches. Errors and losses: see ``writing.write``.
    """
    return writing.write(traces, folder, "train.jsonl", row, lossy, report)


def row(trace: Trace, target: Target) -> dict:
    """The row of a trace."""
    turns = target.chat(trace, system=True)
    images = [part for message in turns for part in writing.pictures(message)]
    return {
        "id": trace.id,
        "messages": [
            {
                "role": message.role,
                "content": [
                    {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": "image"}
                    for part in message.content
                ],
            }
            for message in turns
        ],
        "images": [target.add_image(part) for part in images],
        "sketch_index": [i for i, part in enumerate(images) if isinstance(part, Sketch)],
        **writing.extra_column(trace),
    }
