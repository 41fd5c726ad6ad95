"""The true picture after each step: a bound from above. What sketches could give at most, if they were right.

The model writes a step, and the true picture of that step comes back, whatever the model wrote. Demonstrations are those of
``imagine`` without sketches of the model.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image as PILImage

from eval.turns.baseline import Ask, Problem, Prompted, Thinking
from latent_reason.tasks import Item, Task
from latent_reason.trace import Trace


@dataclass(frozen=True)
class Oracle(Prompted):
    PAPER = "control"
    SUMMARY = "is shown the true picture after each step"
    INSTRUCTIONS = "Think step by step, one step at a time. After each step you are shown what it leads to."
    USES_GOLD = True

    def think(self, problem: Problem) -> Thinking:
        chat = self.begin(problem)
        for picture in problem.gold_pictures:
            reply = yield Ask(chat, continues=True)
            chat = chat.with_reply(reply.text).with_user("", [picture])
        reply = yield Ask(chat)
        return reply.text

    def gold_pictures(self, task: Task, item: Item) -> tuple[PILImage.Image, ...]:
        return true_pictures(item)

    def demonstrate(self, task: Task, item: Item) -> Trace:
        chat, words = self.begin(self.problem(task, item)), list[str]()
        for step in item.steps:
            words.append(step.text)
            if step.sketch is not None:
                chat, words = chat.with_reply(" ".join(words)).with_user("", [step.sketch]), []
        return self.demonstration(task, item, chat.with_reply(" ".join([*words, f"\\boxed{{{item.answer}}}"])))


def true_pictures(item: Item) -> tuple[PILImage.Image, ...]:
    """The true picture after each step of an item that has one."""
    return tuple(step.sketch for step in item.steps if step.sketch is not None)
