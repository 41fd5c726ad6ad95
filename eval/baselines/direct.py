"""The answer at once: what a task gives away without any thinking. A bound from below, as the method ``direct`` is."""

from __future__ import annotations

from dataclasses import dataclass

from eval.turns.baseline import Ask, Problem, Prompted, Thinking
from latent_reason.tasks import Item, Task
from latent_reason.trace import Trace


@dataclass(frozen=True)
class Direct(Prompted):
    PAPER = "control"
    SUMMARY = "the answer at once"
    INSTRUCTIONS = "Give the answer at once, without any reasoning."

    def think(self, problem: Problem) -> Thinking:
        reply = yield Ask(self.begin(problem))
        return reply.text

    def demonstrate(self, task: Task, item: Item) -> Trace:
        chat = self.begin(self.problem(task, item))
        return self.demonstration(task, item, chat.with_reply(f"\\boxed{{{item.answer}}}"))
