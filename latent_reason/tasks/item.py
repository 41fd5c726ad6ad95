"""What a task is made of: items, their steps, parsed sketches, and small functions on images, states and texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image as PILImage
from PIL.Image import Transpose

from ..trace import Part, Text

TURNS = {
    "turned_90": Transpose.ROTATE_90,
    "turned_180": Transpose.ROTATE_180,
    "turned_270": Transpose.ROTATE_270,
    "flipped": Transpose.FLIP_LEFT_RIGHT,
}  # counterclockwise, as in Pillow


@dataclass(frozen=True)
class Step:
    """One reasoning step: a text, then an image of the resulting state (None if no sketch follows)."""

    text: str
    sketch: PILImage.Image | None
    state: Any
    redundant: bool = False


@dataclass(frozen=True)
class Item:
    """One problem with its gold reasoning. ``meta`` holds JSON values only. It suffices to check answers and to render
    all images again."""

    id: str
    task: str
    version: int
    split: str
    seed: int
    level: int
    index: int
    state: Any
    images: list[PILImage.Image]
    question: str
    steps: list[Step]
    answer: str
    checker: str
    meta: dict


@dataclass(frozen=True)
class Parsed:
    """The state parsed from a sketch. ``state`` is None if the image is ambiguous; ``faults`` lists broken
    invariants."""

    state: Any
    confidence: float
    faults: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        return self.state is not None and not self.faults


class Rejected(Exception):
    """The sampled puzzle is rejected. The reason is counted and the next attempt starts."""


def blank(picture: PILImage.Image) -> PILImage.Image:
    """An image of the same size in its mean color."""
    return PILImage.new("RGB", picture.size, picture.resize((1, 1), PILImage.Resampling.BOX).getpixel((0, 0)))


def iter_leaves(state: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """Yield (path, value) of each number and each letter of a JSON state."""
    if isinstance(state, dict | list):
        for key, part in state.items() if isinstance(state, dict) else enumerate(state):
            yield from iter_leaves(part, (*path, key))
    elif isinstance(state, str):
        yield from (((*path, k), letter) for k, letter in enumerate(state))
    else:
        yield path, state


def merge_texts(parts: list[Part]) -> tuple[Part, ...]:
    """Join neighboring texts, so that a trace does not show where a sketch was removed."""
    result: list[Part] = []
    for part in parts:
        if isinstance(part, Text) and result and isinstance(result[-1], Text):
            part = Text(f"{result.pop().text} {part.text}")
        result.append(part)
    return tuple(result)
