"""Another item's pictures after each step: a bound from below, and a test of whether a model trusts what it is shown.

Like ``oracle``, with the pictures of a donor: another item of the same task and level with as many steps where there is one.
Demonstrations are those of ``oracle``, so that one checkpoint serves both.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image as PILImage

from eval.turns.baseline import Problem, Prompted, Thinking
from latent_reason.tasks import Item, Task
from latent_reason.trace import Trace

from .oracle import Oracle, true_pictures

TRIES = 50


@dataclass(frozen=True)
class Random(Prompted):
    PAPER = "control"
    SUMMARY = "is shown another item's picture after each step"
    INSTRUCTIONS = Oracle.INSTRUCTIONS
    USES_GOLD = True

    def think(self, problem: Problem) -> Thinking:
        return Oracle(brief=self.brief).think(problem)

    def gold_pictures(self, task: Task, item: Item) -> tuple[PILImage.Image, ...]:
        stream, wanted = task.stream(item.level, item.index, "random pictures"), len(true_pictures(item))
        best: tuple[PILImage.Image, ...] = ()
        for _ in range(TRIES if wanted else 0):
            donor = task.item(item.level, item.index + stream.between(1, 100_000))
            found = true_pictures(donor)
            if task.canon(donor.state) == task.canon(item.state):
                continue
            if len(found) >= wanted:
                return found[:wanted]
            best = max(best, found, key=len)
        return best

    def demonstrate(self, task: Task, item: Item) -> Trace:
        return Oracle(brief=self.brief).demonstrate(task, item)
