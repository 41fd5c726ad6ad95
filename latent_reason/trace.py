"""Trace: one example as a person reads it.

A trace is a chat. Each message holds typed parts: ``Text``, ``Image`` (something the model sees) and
``Sketch`` (a picture the assistant thinks, which becomes a span of latents). Order of parts is order in the
sequence. Tensors, token ids and shifts live elsewhere: ``batch.py`` is the only bridge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from PIL import Image as PILImage


@dataclass(frozen=True)
class Text:
    """Words. ``loss`` weighs their next-token loss; None means 1 for the assistant and 0 for everyone else."""

    text: str
    loss: float | None = None


@dataclass(frozen=True)
class Image:
    """A picture the model is shown (system and user turns). Raises ValueError for anything but a PIL image."""

    image: PILImage.Image

    def __post_init__(self):
        check_picture(self.image, "Image")


@dataclass(frozen=True)
class Sketch:
    """A picture the assistant draws in latents.

    ``image`` is what the latents should hold; None is a thought that no picture teaches, of ``k`` latents. ``k`` wishes
    for a number of latents; None leaves it to the target.
    ``state`` is what it shows, ``redundant`` marks a sketch that only repeats the input, ``box`` is a region of an
    input picture as (x0, y0, x1, y1) shares. Raises ValueError for an image that is no PIL image.
    """

    image: PILImage.Image | None
    k: int | None = None
    loss: float = 1.0
    state: Any = None
    redundant: bool = False
    box: tuple[float, float, float, float] | None = None

    def __post_init__(self):
        if self.image is not None:
            check_picture(self.image, "Sketch")


def check_picture(picture, holder: str) -> None:
    """Raises ValueError for anything but a PIL image; says what ``holder`` needs instead."""
    if not isinstance(picture, PILImage.Image):
        raise ValueError(
            f"{holder} needs a PIL image, got {type(picture).__name__} {str(picture)[:80]!r}. Open a file with "
            "PIL.Image.open(path)."
        )


Part = Text | Image | Sketch


@dataclass(frozen=True)
class Message:
    role: str  # system | user | assistant
    content: tuple[Part, ...]


@dataclass(frozen=True)
class Trace:
    """One example. ``answer`` is the bare gold answer, ``checker`` names the rule that scores it."""

    id: str
    messages: tuple[Message, ...]
    task: str = ""
    split: str = "train"
    level: int | None = None
    mode: str = "mixed"  # direct | text | vision | mixed
    answer: str | None = None
    checker: str = "same_text"
    meta: dict = field(default_factory=dict)

    def prompt(self) -> Trace:
        """The trace up to, and without, its last assistant message: what a model is asked to continue."""
        messages = self.messages
        if messages and messages[-1].role == "assistant":
            messages = messages[:-1]
        return Trace(
            self.id, messages, self.task, self.split, self.level, self.mode, self.answer, self.checker, self.meta
        )

    def images(self) -> list[PILImage.Image]:
        return [p.image for m in self.messages for p in m.content if isinstance(p, Image)]

    def sketches(self) -> list[Sketch]:
        return [p for m in self.messages for p in m.content if isinstance(p, Sketch)]

    def assistant_text(self) -> str:
        """All words of the last assistant message, joined: what a checker reads."""
        last = self.messages[-1]
        return "".join(p.text for p in last.content if isinstance(p, Text)) if last.role == "assistant" else ""
