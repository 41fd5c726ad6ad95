"""Explicit pictures at the content of latents ("Thinking with Generated Images", paper 11 of the list): each sketch is rendered
by the sketch decoder and read again through the vision encoder.

The source generates pictures with a unified model. Here the model draws the latents of a sketch as it always does, the turn
ends, and what goes back is their rendering, as an ordinary picture. The latents of an earlier turn stand in the chat as the
encoding of their rendering, so that nothing which the rendering does not show reaches a later turn. So a difference to the
latents themselves is one of the channel. A rendering has the size of the problem's last picture. Demonstrations have the true
pictures in both places.
"""

from __future__ import annotations

from dataclasses import dataclass

from eval.turns.baseline import ANSWER_NOW, Ask, Problem, Prompted, Thinking
from latent_reason.tasks import Item, Task
from latent_reason.trace import Trace
from latent_reason.values import Count


@dataclass(frozen=True)
class Imagine(Prompted):
    """Args:
    turns: the most sketches.
    """

    turns: Count = 8

    PAPER = "Thinking with Generated Images"
    SUMMARY = "draws a sketch, and reads its rendering as a picture"
    INSTRUCTIONS = "Think step by step and sketch what a step leads to. Each sketch is shown to you as a picture."
    RENDERS = True

    def think(self, problem: Problem) -> Thinking:
        chat = self.begin(problem)
        for turn in range(self.turns):
            reply = yield Ask(chat, continues=True)
            if not reply.sketches:
                return reply.text
            chat = chat.with_reply(reply.text, reply.sketches[0]).with_user("", reply.sketches)
            if turn == self.turns - 1 and not self.brief:
                chat = chat.with_user(ANSWER_NOW)
        reply = yield Ask(chat)
        return reply.text

    def demonstrate(self, task: Task, item: Item) -> Trace:
        chat, words, sketches = self.begin(self.problem(task, item)), list[str](), 0
        for step in item.steps:
            words.append(step.text)
            if step.sketch is not None and sketches < self.turns:
                chat = chat.with_reply(" ".join(words), step.sketch).with_user("", [step.sketch])
                words, sketches = [], sketches + 1
        return self.demonstration(task, item, chat.with_reply(" ".join([*words, f"\\boxed{{{item.answer}}}"])))
