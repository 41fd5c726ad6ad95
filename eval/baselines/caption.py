"""The sketch in words (CapImagine, 2602.22766): at each place of a sketch the model says what the sketch would show.

The source replaces each intermediate picture of its training data by a text that describes it. Here a demonstration is the
mode ``text`` of a task, whose sentences state the same states as its sketches, in the same order. A model that was not
trained on them is asked to imagine the picture after each step and to describe it.
"""

from __future__ import annotations

from dataclasses import dataclass

from eval.turns.baseline import Ask, Problem, Prompted, Thinking
from latent_reason.tasks import Item, Task
from latent_reason.trace import Trace


@dataclass(frozen=True)
class Caption(Prompted):
    PAPER = "arXiv 2602.22766"
    SUMMARY = "says in words what each sketch would show"
    INSTRUCTIONS = (
        "Think step by step. After each step imagine the picture that the step leads to, and describe it in words."
    )

    def think(self, problem: Problem) -> Thinking:
        reply = yield Ask(self.begin(problem))
        return reply.text

    def demonstrate(self, task: Task, item: Item) -> Trace:
        words = task.trace(item, "text").assistant_text()
        return self.demonstration(task, item, self.begin(self.problem(task, item)).with_reply(words))
