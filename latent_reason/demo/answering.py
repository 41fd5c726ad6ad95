"""What the form of the demo asks for: its values -> options, and the answers of all checkpoints as they come."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from PIL import Image as PILImage

from ..asking.ask import AskOptions, Latents, latents_about, question
from ..data.pictures import Limits, read_picture
from ..visualization.answer_view import AnswerView
from .boards import Boards
from .models import DemoModel

LIMITS = Limits(side=4096, pixels=4_000_000, bytes=16 * 2**20)  # of a picture, as in latent_reason/serving
MOST_PICTURES = 8
SECONDS_BETWEEN = 0.1  # how often the page is written again while text comes


@dataclass(frozen=True)
class Form:
    """The values of the form.

    Args:
        pictures: files.
        foreign: the file whose sketches ``latents="foreign"`` takes.
        latents_per_span, steps: None: as in training.
    """

    pictures: Sequence[str]
    text: str
    latents: str = "on"
    foreign: str | None = None
    latents_per_span: int | None = None
    steps: int | None = None
    temperature: float = 0.0
    seed: int = 0
    decoding: str = "plain"
    max_new_tokens: int = 640

    def read_pictures(self) -> list[PILImage.Image]:
        """The pictures in RGB.

        Raises:
            ValueError: there are too many, or one is no picture that can be read safely.
        """
        if len(self.pictures) > MOST_PICTURES:
            raise ValueError(f"{len(self.pictures)} pictures are too many. Ask about {MOST_PICTURES} at most.")
        return [read_file(path) for path in self.pictures]

    def options_for(self, model: DemoModel) -> AskOptions:
        """The options of an answer of a model. Errors as of ``AskOptions`` and ``latents_about``."""
        options = AskOptions(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            seed=self.seed,
            latents_per_span=self.latents_per_span,
            steps=self.steps,
            decoding=self.decoding,
        )
        if self.latents != "foreign":
            return replace(options, latents=cast(Latents, self.latents))
        if self.foreign is None:
            raise ValueError("foreign latents are those of the answer about another picture. Choose that picture.")
        if not options.is_plain:
            raise ValueError("foreign latents are for plain decoding. Choose the method plain.")
        latents = latents_about(model.reasoner, read_file(self.foreign), self.text, options)
        return replace(options, latents="foreign", foreign=latents)

    def about(self, model: DemoModel) -> dict[str, str]:
        """The lines under an answer that say how it was made."""
        lines = {"checkpoint": model.name, "latents": self.latents, "decoding": self.decoding}
        lines |= {"temperature": f"{self.temperature:g}", "seed": str(self.seed)}
        given = {"latents of a sketch": self.latents_per_span, "denoising steps": self.steps}
        return lines | {name: str(value) for name, value in given.items() if value is not None}


def read_file(path: str) -> PILImage.Image:
    return read_picture(path, Path(path).name, "picture", lambda kind, text: None, LIMITS)


def read_number(text: str, name: str, low: int) -> int:
    """A whole number of a text field.

    Raises:
        ValueError: it is none, or less than ``low``.
    """
    if not text.strip().isdecimal() or int(text) < low:
        raise ValueError(f"{name} {text!r}: must be a whole number of at least {low}, or left empty as in training.")
    return int(text)


def answer(models: Sequence[DemoModel], boards: Boards, form: Form) -> Iterator[list[AnswerView | None]]:
    """The answers so far, one for each checkpoint; None of one that has not begun.

    The checkpoints answer one after the other. The question of an example is asked as it stands in the data, and its
    answer is judged.

    Raises:
        ValueError: there is no question, or a value cannot be used; the message says which.
    """
    if not form.text.strip():
        raise ValueError("there is no question. Write one, or choose an example.")
    pictures = form.read_pictures()
    example = boards.find(pictures, form.text)
    trace = question(pictures, form.text) if example is None else example.trace
    views: list[AnswerView | None] = [None] * len(models)
    for number, model in enumerate(models):
        shown_at, view = 0.0, None
        for view in model.stream(trace, form.options_for(model), example):
            views[number] = view
            if time.monotonic() - shown_at >= SECONDS_BETWEEN:
                yield list(views)
                shown_at = time.monotonic()
        if view is not None:
            views[number] = replace(view, about=form.about(model))
        yield list(views)
