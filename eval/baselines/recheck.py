"""A second look (GThinker, 2506.01078): after an answer the model looks at the picture again and checks it, in words or by a
second sketch.

The source trains a model to mark visual cues and to check those that conflict, and to do so by itself. Here the check is a
turn that follows every answer. ``sketches=true`` opens it with a sketch, for models that draw them. Where the second reply has no
boxed answer, the first one stands.
"""

from __future__ import annotations

from dataclasses import dataclass

from eval.turns.baseline import BOX, Ask, OutOfBudget, Problem, Prompted, Thinking
from latent_reason.tasks.checkers import boxed

RECHECK = "Look at the picture again and check each step against it. Mend what is wrong."


@dataclass(frozen=True)
class Recheck(Prompted):
    """Args:
    sketches: the check begins with a sketch, and the model may sketch in both turns.
    """

    sketches: bool = False

    PAPER = "arXiv 2506.01078"
    SUMMARY = "looks at the picture again after its answer"
    INSTRUCTIONS = "Think step by step."

    @property
    def may_sketch(self) -> bool:
        return self.sketches

    def think(self, problem: Problem) -> Thinking:
        chat = self.begin(problem)
        first = yield Ask(chat, continues=True)
        again = chat.with_reply(first.text).with_user(RECHECK if self.brief else f"{RECHECK} {BOX}")
        try:
            second = yield Ask(again, opens_sketch=self.sketches)
        except OutOfBudget:
            return first.text
        return second.text if boxed(second.text) else first.text
