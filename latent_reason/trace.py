"""Trace: one example as a person reads it.

A trace is a chat. Each message holds typed parts: ``Text``, ``Image`` (an input image) and ``Sketch`` (an intermediate
image of the assistant, which becomes a span of latents). The order of parts is their order in the sequence. Tensors and
token ids are elsewhere: model/processor.py is the only bridge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from PIL import Image as PILImage

from .images import to_rgb


@dataclass(frozen=True)
class Text:
    """A piece of text in a message.

    Example:
        >>> Text("The goal is two cells to the right.")

    ``loss`` is the weight of its next-token loss; None means 1 for the assistant and 0 for other roles.
    """

    text: str
    loss: float | None = None


@dataclass(frozen=True)
class Image:
    """An input image (in system and user turns), kept in RGB (:func:`~latent_reason.images.to_rgb`).

    Example:
        >>> Image(PIL.Image.open("board.png"))

    Raises:
        ValueError: ``image`` is not a PIL image.
    """

    image: PILImage.Image

    def __post_init__(self):
        object.__setattr__(self, "image", _in_rgb(self.image, "Image"))


@dataclass(frozen=True)
class Sketch:
    """An intermediate image of the assistant's reasoning, which becomes a span of latents.

    Example:
        >>> Sketch(PIL.Image.open("board_after_two_moves.png"))

    ``image`` is what the latents should represent. None is a span of ``k`` latents without a target. With an image,
    ``k`` asks for a number of latents; None leaves it to the target. ``loss`` is the weight of the latent loss.
    ``state`` is the content of the image for checkers. ``redundant`` marks a sketch that only repeats the input.
    ``box`` is a region of the input image before it, as fractions (x0, y0, x1, y1).

    Raises:
        ValueError: ``image`` is neither a PIL image nor None.
    """

    image: PILImage.Image | None
    k: int | None = None
    loss: float = 1.0
    state: Any = None
    redundant: bool = False
    box: tuple[float, float, float, float] | None = None

    def __post_init__(self):
        if self.image is not None:
            object.__setattr__(self, "image", _in_rgb(self.image, "Sketch"))


def _in_rgb(image: Any, part: str) -> PILImage.Image:
    if not isinstance(image, PILImage.Image):
        raise ValueError(f"{part}(image=...) needs a PIL image, got {type(image).__name__}. Use PIL.Image.open(path).")
    return to_rgb(image)


Part = Text | Image | Sketch


@dataclass(frozen=True)
class Message:
    """One turn of a chat: a role and its parts in order.

    Example:
        >>> Message("user", (Image(image), Text("Which way is safe?")))
    """

    role: str  # system | user | assistant
    content: tuple[Part, ...]


@dataclass(frozen=True)
class Trace:
    """One example: a chat with its gold answer.

    Example:
        >>> question = Message("user", (Image(image), Text("Which way is safe?")))
        >>> trace = Trace("item-0", (question,), answer="L,U")

    ``answer`` is the gold answer, ``checker`` names the rule that scores it.
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
        """The trace without its last assistant message: what a model continues."""
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
        """All text of the last assistant message, joined: what a checker reads."""
        last = self.messages[-1]
        return "".join(p.text for p in last.content if isinstance(p, Text)) if last.role == "assistant" else ""
