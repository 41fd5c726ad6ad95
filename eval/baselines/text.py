"""Chain of thought in words (Wei et al., 2201.11903): step by step, then the answer. Nothing is drawn or looked at again.

Its demonstrations have the words of a task's solution and say nothing of the states that a sketch would show. The same with
each state in words is ``caption``.
"""

from __future__ import annotations

from dataclasses import dataclass

from eval.turns.baseline import Ask, Problem, Prompted, Thinking
from latent_reason.tasks import Item, Task
from latent_reason.trace import Trace


@dataclass(frozen=True)
class Text(Prompted):
    PAPER = "arXiv 2201.11903"
    SUMMARY = "thinks step by step in words"
    INSTRUCTIONS = "Think step by step."

    def think(self, problem: Problem) -> Thinking:
        reply = yield Ask(self.begin(problem))
        return reply.text

    def demonstrate(self, task: Task, item: Item) -> Trace:
        words = " ".join([*(step.text for step in item.steps), f"\\boxed{{{item.answer}}}"])
        return self.demonstration(task, item, self.begin(self.problem(task, item)).with_reply(words))
