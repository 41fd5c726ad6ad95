"""Trace: one example as a person reads it.

A trace is a chat. Each message holds typed parts: ``Text``, ``Image`` (an input picture) and ``Sketch`` (a picture in
the assistant's reasoning, which becomes a span of latents). Order of parts is order in the sequence. Tensors, token ids
and shifts live elsewhere: ``batch.py`` is the only bridge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from PIL import Image as PILImage


@dataclass(frozen=True)
class Text:
    """A piece of text in a message.

        Text("The goal is two cells to the right.")

    ``loss`` weighs its next-token loss; None means 1 in a message of the assistant and 0 in any other.
    """

    text: str
    loss: float | None = None


@dataclass(frozen=True)
class Image:
    """An input picture in a message of the user or the system.

    Image(PIL.Image.open("board.png"))
    """

    image: PILImage.Image


@dataclass(frozen=True)
class Sketch:
    """A sketch in a message of the assistant: a span of latents, trained toward a picture.

        Sketch(PIL.Image.open("after_two_moves.png"))

    ``image`` is the target picture; None is a span of ``k`` latents without a target. ``k`` asks for a number of
    latents; None leaves it to the method. ``loss`` weighs the latent loss of the span. ``state`` is what the picture
    shows, ``redundant`` marks a sketch that repeats an input picture, ``box`` is a region of an input picture as
    shares (x0, y0, x1, y1) of its width and height.
    """

    image: PILImage.Image | None
    k: int | None = None
    loss: float = 1.0
    state: Any = None
    redundant: bool = False
    box: tuple[float, float, float, float] | None = None


Part = Text | Image | Sketch


@dataclass(frozen=True)
class Message:
    """One turn of a chat: a role and its parts in order.

    Message("user", (Image(picture), Text("Which way to the goal?")))
    """

    role: str  # system | user | assistant
    content: tuple[Part, ...]


@dataclass(frozen=True)
class Trace:
    """One training example, or one prompt if it ends with a user's message.

        Trace(
            "board-1",
            (
                Message("user", (Image(picture), Text("Which way to the goal?"))),
                Message("assistant", (Text("I go right. "), Sketch(after), Text("\\boxed{R}"))),
            ),
            answer="R",
        )

    ``answer`` is the gold answer alone, ``checker`` names the rule that scores it, ``mode`` the form of the reasoning:
    direct, text, vision or mixed.
    """

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
        """The trace without its last assistant message: the prompt that a model continues."""
        messages = self.messages
        if messages and messages[-1].role == "assistant":
            messages = messages[:-1]
        return Trace(
            self.id, messages, self.task, self.split, self.level, self.mode, self.answer, self.checker, self.meta
        )

    def images(self) -> list[PILImage.Image]:
        """The input pictures, in order."""
        return [p.image for m in self.messages for p in m.content if isinstance(p, Image)]

    def sketches(self) -> list[Sketch]:
        """The sketches, in order."""
        return [p for m in self.messages for p in m.content if isinstance(p, Sketch)]

    def assistant_text(self) -> str:
        """The text of the last assistant message, joined: the input of a checker."""
        last = self.messages[-1]
        return "".join(p.text for p in last.content if isinstance(p, Text)) if last.role == "assistant" else ""
