"""Decompose, infer, score, refine (CMRF, 2508.02886): a chain of sub-questions whose coherence the model scores itself, and
which it writes again with its own criticism until the score is high enough.

The source trains three modules. Here they are three prompts of one backbone. The best-scored answer is returned, not the last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from eval.turns.baseline import Ask, Chat, OutOfBudget, Problem, Prompted, Thinking
from latent_reason.values import Count, Natural

SCORE = (
    "Is the reasoning above coherent, and does it agree with the picture? Write 'Score: N' with N from 0 to 10, then what is "
    "wrong with it."
)
REFINE = "Mend what is wrong and answer the question again."
SCORED = re.compile(r"score\W{0,6}(\d{1,2})\b", re.IGNORECASE)


@dataclass(frozen=True)
class SelfRefine(Prompted):
    """Args:
    rounds: the most answers.
    enough: the score, of 10, from which an answer is not refined.
    """

    rounds: Count = 3
    enough: Natural = 8

    PAPER = "arXiv 2508.02886"
    SUMMARY = "scores its own reasoning and refines it"
    INSTRUCTIONS = "Split the question into sub-questions, answer them one by one, then answer the question."

    def think(self, problem: Problem) -> Thinking:
        chat: Chat = self.begin(problem)
        best, best_score = "", -1
        try:
            for left in reversed(range(self.rounds)):
                reply = yield Ask(chat, continues=self.rounds > 1)
                if best_score < 0:
                    best = reply.text  # until an answer has a score
                if self.rounds == 1:
                    break
                scored = yield Ask(chat.with_reply(reply.text).with_user(SCORE), continues=left > 0)
                score = read_score(scored.text)
                if score > best_score:
                    best, best_score = reply.text, score
                if score >= self.enough:
                    break
                chat = chat.with_reply(reply.text).with_user(SCORE).with_reply(scored.text).with_user(REFINE)
        except OutOfBudget:
            pass  # the best answer so far
        return best


def read_score(text: str) -> int:
    """The score in a text, 0 to 10. 0 where there is none."""
    found = SCORED.search(text)
    return min(int(found[1]), 10) if found else 0
