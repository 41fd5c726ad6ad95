"""Monet-SFT (arXiv 2511.21395): lists of turns whose assistant images follow ``<abs_vis_token></abs_vis_token>``.

``<observation>`` marks text that depends on the preceding image. Monet's loader drops some rows silently. Here, rows
with different numbers of signs and images are errors; rows without an observation are kept with a warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ...trace import Image, Message, Part, Sketch, Text, Trace
from .. import reading
from ..errors import DataError, Report
from ..pictures import Limits
from ..reading import Fields
from ..record import TYPES, checked_text, get

SIGN = "<abs_vis_token></abs_vis_token>"
ROLES = {role: role for role in ("system", "user", "assistant")}


def read(
    source: str | Path,
    image_root: str | Path | None = None,
    report: Report | None = None,
    limits: Limits | None = None,
    *,
    observation_loss: float = 1.0,
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace. ``observation_loss`` (0-100) is the loss weight of observation text.

    Errors: E05 observation that is not closed or precedes all images, E10 image without a sign or sign without an
    image, E19 order of turns.
    """
    if not 0 <= observation_loss <= 100:
        raise ValueError(f"observation loss {observation_loss} is out of range. Use a weight in 0-100.")
    return reading.read(source, partial(trace, weight=observation_loss), image_root, report, limits)


def trace(fields: Fields, weight: float) -> Trace:
    """Convert one row."""
    messages, before, turns = [], "nothing", fields.get("data", list)
    for i, turn in enumerate(turns):
        at = f"data[{i}]"
        if not isinstance(turn, dict):
            raise DataError("E05", at, f"expected an object, found {TYPES[type(turn)]}. See the format table.")
        before = reading.native_role(get(turn, "role", str, at=at + "."), before, f"{at}.role", ROLES)
        parts = [_checked(part, f"{at}.content[{j}]") for j, part in enumerate(get(turn, "content", list, at=at + "."))]
        result = (
            _assistant_parts(fields, parts, at, weight) if before == "assistant" else _input_parts(fields, parts, at)
        )
        if not result:
            raise DataError("E14", f"{at}.content", "empty. Drop the row or fill it.")
        messages.append(Message(before, tuple(result)))
    if before != "assistant":
        raise DataError("E19", "data", "no assistant turn at the end. Add the answer.")
    if not any("<observation>" in str(turn) for turn in turns):
        fields.row.warn(
            "observation", "no <observation> in this row; it is kept, but the loader of Monet drops such rows"
        )
    metadata = fields.get("metadata", dict, default={})
    source, name = metadata.get("dataset_name"), metadata.get("sample_id")
    id = None if name is None else "-".join(str(part) for part in (source, name) if part is not None)
    return reading.record(fields, "monet", messages, id=id, task=source if isinstance(source, str) else None)


def _checked(part: object, at: str) -> tuple[str, str, str]:
    """(kind, text or path, field)."""
    if not isinstance(part, dict):
        raise DataError("E05", at, f"expected an object, found {TYPES[type(part)]}. See the format table.")
    kind = get(part, "type", str, at=at + ".")
    if kind not in ("text", "image"):
        raise DataError("E06", at + ".type", f"'{kind[:40]}' is no part type. Use text or image.")
    return kind, get(part, kind, str, at=at + "."), f"{at}.{kind}"


def _input_parts(fields: Fields, parts: list[tuple[str, str, str]], at: str) -> list[Part]:
    return [
        Image(fields.row.load(value, field)) if kind == "image" else Text(checked_text(value, field))
        for kind, value, field in parts
        if kind == "image" or value.strip()
    ]


def _assistant_parts(fields: Fields, parts: list[tuple[str, str, str]], at: str, weight: float) -> list[Part]:
    result: list[Part] = []
    signs = sum(value.count(SIGN) for kind, value, _ in parts if kind == "text")
    pictures = sum(kind == "image" for kind, *_ in parts)
    if signs != pictures:
        raise DataError("E10", f"{at}.content", f"{signs} x {SIGN}, {pictures} x image. Counts must match.")
    expects_image = False  # whether the last text ended with a sign
    for kind, value, field in parts:
        if kind == "image":
            if not expects_image:
                raise DataError("E10", field, f"no {SIGN} in the text before this image. Move or add it.")
            result.append(Sketch(fields.row.load(value, field)))
        elif expects_image:
            raise DataError("E10", field, f"no image after the {SIGN} of the previous text. Move or add it.")
        else:
            if "<observation>" in value and not any(isinstance(part, Sketch) for part in result):
                raise DataError(
                    "E05", field, "an observation before the first image. Move it after an image or remove its tags."
                )
            result += _split(value.replace(SIGN, ""), field, weight)
        expects_image = kind == "text" and SIGN in value
    return result


def _split(text: str, field: str, weight: float) -> list[Text]:
    return [
        Text(checked_text(piece, field), weight if i % 2 else None)
        for i, piece in enumerate(reading.split_at_tag(text, "observation", field))
        if piece.strip()
    ]
