"""Baselines that call a tool, look at what it gives back and go on: the loop that they share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from PIL import Image as PILImage

from latent_reason.values import Count

from .baseline import ANSWER_NOW, Ask, Call, Problem, Prompted, Thinking
from .pictures import ToolError, pad_thin

ERROR = "Error: "
LONGEST = 2000  # characters that a tool tells


class Observation(NamedTuple):
    """What a tool gives back."""

    text: str = ""
    pictures: tuple[PILImage.Image, ...] = ()


class Action(NamedTuple):
    """A call in a reply: what to run, and where it ends in the text. What follows is the model's guess of the result."""

    run: Callable[[], Observation]
    end: int


@dataclass(frozen=True)
class ToolBaseline(Prompted):
    """A model that may call tools, turn by turn, until it writes a reply without a call.

    Args:
        turns: the most calls. After the last one the model is told to answer, unless ``brief``.
    """

    turns: Count = field(default=4, kw_only=True)

    @abstractmethod
    def find_action(self, text: str, problem: Problem, observed: tuple[PILImage.Image, ...]) -> Action | None:
        """The first call in a reply. ``observed`` are the pictures that tools have given back so far."""

    def think(self, problem: Problem) -> Thinking:
        chat, observed = self.begin(problem), tuple[PILImage.Image, ...]()
        for turn in range(self.turns):
            reply = yield Ask(chat, continues=True)
            action = self.find_action(reply.text, problem, observed)
            if action is None:
                return reply.text
            observation = yield Call(partial(run_tool, action.run))
            observed += observation.pictures
            text = observation.text or ("" if observation.pictures else "The call gave nothing back.")
            chat = chat.with_reply(reply.text[: action.end]).with_user(text, observation.pictures)
            if turn == self.turns - 1 and not self.brief:
                chat = chat.with_user(ANSWER_NOW)
        reply = yield Ask(chat)
        return reply.text


def run_tool(run: Callable[[], Observation]) -> Observation:
    """What a tool gives back, in a size that encoders take. A failure of the call is text for the model."""
    try:
        observation = run()
    except ToolError as error:
        return Observation(f"{ERROR}{error}")
    text = observation.text
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}\n({len(text) - LONGEST:,} further characters are left out.)"
    return Observation(text, tuple(map(pad_thin, observation.pictures)))
