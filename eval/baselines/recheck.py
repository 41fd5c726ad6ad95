"""A second look (GThinker, 2506.01078): after an answer the model looks at the picture again and checks it, in words or by a
second sketch.

The source trains a model to mark visual cues and to check those that conflict, and to do so by itself. Here the check is a
turn that follows every answer. ``look=sketch`` opens it with a sketch, for models that draw one. Where the second reply has no
boxed answer, the first one stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eval.turns.baseline import BOX, Ask, Problem, Prompted, Thinking
from latent_reason.tasks.checkers import boxed

RECHECK = "Look at the picture again and check each step against it. Mend what is wrong."


@dataclass(frozen=True)
class Recheck(Prompted):
    """Args:
    look: how the second look begins.
    """

    look: Literal["text", "sketch"] = "text"

    PAPER = "arXiv 2506.01078"
    SUMMARY = "looks at the picture again after its answer"
    INSTRUCTIONS = "Think step by step."

    @property
    def may_sketch(self) -> bool:
        return self.look == "sketch"

    def think(self, problem: Problem) -> Thinking:
        chat = problem.chat(self.preface)
        first = yield Ask(chat)
        again = chat.with_reply(first.text).with_user(RECHECK if self.brief else f"{RECHECK} {BOX}")
        second = yield Ask(again, opens_sketch=self.look == "sketch")
        return second.text if boxed(second.text) else first.text
