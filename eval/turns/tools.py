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
from .pictures import ToolError


class Seen(NamedTuple):
    """What a tool gives back."""

    text: str = ""
    pictures: tuple[PILImage.Image, ...] = ()


class Action(NamedTuple):
    """A call in a reply: what to run, and where it ends in the text. What follows is the model's guess of the result."""

    run: Callable[[], Seen]
    end: int


@dataclass(frozen=True)
class ToolBaseline(Prompted):
    """A model that may call tools, turn by turn, until it writes a reply without a call.

    Args:
        turns: the most calls. After the last one the model is told to answer.
    """

    turns: Count = field(default=4, kw_only=True)

    @abstractmethod
    def find_action(self, text: str, problem: Problem, shown: tuple[PILImage.Image, ...]) -> Action | None:
        """The first call in a reply. ``shown`` are the pictures that tools have given back so far."""

    def think(self, problem: Problem) -> Thinking:
        chat, shown = problem.chat(self.preface), tuple[PILImage.Image, ...]()
        for turn in range(self.turns):
            reply = yield Ask(chat)
            action = self.find_action(reply.text, problem, shown)
            if action is None:
                return reply.text
            seen = yield Call(partial(run_tool, action.run))
            shown += seen.pictures
            chat = chat.with_reply(reply.text[: action.end]).with_user(seen.text or "", seen.pictures)
            if chat.messages[-1].role != "user":
                chat = chat.with_user("The call gave nothing back.")
            if turn == self.turns - 1 and not self.brief:
                chat = chat.with_user(ANSWER_NOW)
        reply = yield Ask(chat)
        return reply.text


def run_tool(run: Callable[[], Seen]) -> Seen:
    """What a tool gives back. A failure of the call is text for the model."""
    try:
        return run()
    except ToolError as error:
        return Seen(f"Error: {error}")
