"""TRL chats: ``messages``, or ``prompt`` and ``completion``, of strings or typed parts, with ordered ``images``.

An ``image`` part without content is the next entry of ``images`` (or ``image``). Without ``image`` parts, the images
are placed before the first question.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ...trace import Image, Message, Part, Sketch, Text, Trace
from .. import reading, writing
from ..errors import DataError, Report
from ..pictures import Limits
from ..reading import Fields
from ..record import TYPES, checked_text, get
from ..writing import Target

ROLES = {role: role for role in ("system", "user", "assistant")}


def read(
    source: str | Path,
    image_root: str | Path | None = None,
    report: Report | None = None,
    limits: Limits | None = None,
    *,
    assistant_image: str = "refuse",
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace. ``assistant_image``: meaning of images in assistant turns, sketch or refuse.

    The column ``sketch_index`` of our writer lists which ``images`` are sketches. Errors: E05 no content, E06 unknown
    role or part type, or an assistant image, E10 numbers of image parts and images differ, E19 order of turns.
    """
    if assistant_image not in ("refuse", "sketch"):
        raise ValueError(f"unknown assistant_image '{assistant_image}'. Use refuse or sketch.")
    return reading.read(source, partial(trace, assistant_image=assistant_image), image_root, report, limits)


def trace(fields: Fields, assistant_image: str) -> Trace:
    """Convert one row."""
    key = "images" if "images" in fields.values else "image"
    pictures, chat = fields.pictures(key), _chat(fields)
    num_placeholders = sum(_is_empty(part) for _, parts, _ in chat for part in parts)
    if not num_placeholders and not any(part.get("type") == "image" for _, parts, _ in chat for part in parts):
        first = next((i for i, (role, *_) in enumerate(chat) if role == "user"), None)
        if pictures and first is not None:
            role, parts, at = chat[first]
            chat[first] = role, [{"type": "image"}] * len(pictures) + parts, at
            num_placeholders = len(pictures)
    reading.check_counts(num_placeholders, "'image'", "all turns", len(pictures), key, chat[0][2].partition("[")[0])
    sketches, remaining = fields.get("sketch_index", list, default=[]), iter(range(len(pictures)))
    messages = []
    for role, parts, at in chat:
        made = tuple(
            new_part
            for j, part in enumerate(parts)
            for new_part in _part(
                fields, part, role, f"{at}.content[{j}]", pictures, remaining, sketches, assistant_image
            )
        )
        if not made:
            raise DataError("E14", f"{at}.content", "empty. Drop the row or fill it.")
        messages.append(Message(role, made))
    sketch_positions = [
        i
        for i, (role, part) in enumerate((role, part) for role, parts, _ in chat for part in parts if _is_empty(part))
        if role == "assistant"
    ]
    if sketches and sketches != sketch_positions:
        raise DataError(
            "E10", "sketch_index", f"{sketches}, but the images of the assistant are {sketch_positions}. Correct it."
        )
    return reading.record(fields, "trl", messages, id=fields.name("id"))


def _chat(fields: Fields) -> list[tuple[str, list[dict], str]]:
    """The turns as (role, parts, field)."""
    chat, before = [], "nothing"
    for key, role in (
        (("messages", ""),) if "messages" in fields.values else (("prompt", "user"), ("completion", "assistant"))
    ):
        is_plain_text = isinstance(fields.values.get(key), str) and role
        turns = [{"role": role, "content": fields.get(key, str)}] if is_plain_text else fields.get(key, list)
        for i, turn in enumerate(turns):
            at = key if is_plain_text else f"{key}[{i}]"
            if not isinstance(turn, dict):
                raise DataError("E05", at, f"expected an object, found {TYPES[type(turn)]}. See the format table.")
            before = reading.native_role(get(turn, "role", str, at=at + "."), before, f"{at}.role", ROLES)
            chat.append((before, _content(turn.get("content"), f"{at}.content"), at))
    if before != "assistant":
        raise DataError(
            "E19",
            "messages" if "messages" in fields.values else "completion",
            "no assistant turn at the end. Add the answer.",
        )
    return chat


def _content(content: Any, field: str) -> list[dict]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise DataError(
            "E05", field, f"expected a string or a list of parts, found {TYPES[type(content)]}. See the format table."
        )
    return content


def _is_empty(part: dict) -> bool:
    return part.get("type") == "image" and part.get("image") is None


def _part(
    fields: Fields,
    part: dict,
    role: str,
    at: str,
    pictures: list[Image | Sketch],
    remaining: Iterator[int],
    sketches: list,
    assistant_image: str,
) -> list[Part]:
    kind = get(part, "type", str, at=at + ".")
    if kind == "text":
        text = get(part, "text", str, at=at + ".")
        return [Text(checked_text(text, at + ".text"))] if text.strip() else []
    if kind != "image":
        raise DataError("E06", at + ".type", f"'{kind[:40]}' is no part type. Use text or image.")
    index = next(remaining) if _is_empty(part) else None
    picture = (
        pictures[index].image
        if index is not None
        else fields.row.load(get(part, "image", str, at=at + "."), at + ".image")
    )
    if role != "assistant":
        return [Image(picture)]
    if assistant_image != "sketch" and index not in sketches:
        raise DataError("E06", at + ".type", "'image' in an assistant turn. Convert with --assistant-image sketch.")
    return [Sketch(picture)]


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
