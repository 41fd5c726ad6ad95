"""Explicit pictures at the content of latents ("Thinking with Generated Images", paper 11 of the list): each sketch is rendered
by the sketch decoder and read again through the vision encoder.

The source generates pictures with a unified model. Here the model draws the latents of a sketch as it always does, the turn
ends, and what goes back is not the latents but their rendering, as an ordinary picture. So a difference to the latents
themselves is one of the channel: the chat keeps the words of a turn and the rendering, and no latent.
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
        chat = problem.chat(self.preface)
        for turn in range(self.turns):
            reply = yield Ask(chat)
            if not reply.sketches:
                return reply.text
            chat = chat.with_reply(reply.text).with_user("", reply.sketches)
            if turn == self.turns - 1 and not self.brief:
                chat = chat.with_user(ANSWER_NOW)
        reply = yield Ask(chat)
        return reply.text

    def demonstrate(self, task: Task, item: Item) -> Trace:
        chat, words, sketches = self.problem(task, item).chat(self.preface), list[str](), 0
        for step in item.steps:
            words.append(step.text)
            if step.sketch is not None and sketches < self.turns:
                chat = chat.with_reply(" ".join(words), step.sketch).with_user("", [step.sketch])
                words, sketches = [], sketches + 1
        return self.demonstration(task, item, chat.with_reply(" ".join([*words, f"\\boxed{{{item.answer}}}"])))
