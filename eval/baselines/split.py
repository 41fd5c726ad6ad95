"""Duties apart (DDCoT, 2310.16436): sub-questions are marked with or without need of the picture, those that need it are
answered from it, and all is put together.

In the source one language model reasons without pictures and a visual question answerer answers. Here one backbone has both
roles: it splits the question without the picture, answers each marked sub-question with the picture alone, and reasons over
all of it with the picture.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from eval.turns.baseline import Ask, Problem, Prompted, Thinking
from latent_reason.values import Count

SPLIT = (
    "Do not answer yet. Split this question into sub-questions, one a line. Begin a line with [picture] where only the picture "
    "can answer it, and with [words] where it cannot help, followed by its answer."
)
MARKED = re.compile(r"^[\W\d]*\[(picture|words)\][ :]*(\S.*)$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True)
class Split(Prompted):
    """Args:
    most: the most sub-questions that are asked of the picture.
    """

    most: Count = 4

    PAPER = "arXiv 2310.16436"
    SUMMARY = "splits the question into parts with and without need of the picture"
    INSTRUCTIONS = "Think step by step."

    def think(self, problem: Problem) -> Thinking:
        plan = yield Ask(problem.chat(SPLIT, ()), continues=True)
        known = []
        asked = 0
        for kind, text in MARKED.findall(plan.text):
            if kind.lower() == "words":
                known.append(text)
            elif asked < self.most:
                asked += 1
                reply = yield Ask(Problem(problem.id, problem.pictures, text).chat(), continues=True)
                known.append(f"{text} {reply.text}")
        lines, preface = "\n".join(known), self.preface(problem)
        chat = problem.chat(f"What is known, part of it perhaps wrong:\n{lines}\n{preface}" if known else preface)
        reply = yield Ask(chat)
        return reply.text
