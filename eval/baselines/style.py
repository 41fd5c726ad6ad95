"""Short sketch-like words (SketchThinker-R1, paper 64 of the list): notes in place of sentences, before the answer.

The source trains a judge of style and rewards short reasoning by RL, for two thirds fewer tokens at equal accuracy. Here the
style is asked for. ``train.rl`` has no judge of style: its reward ``short`` prefers the shorter of right answers, by rule.
"""

from __future__ import annotations

from dataclasses import dataclass

from eval.turns.baseline import Ask, Problem, Prompted, Thinking


@dataclass(frozen=True)
class Style(Prompted):
    PAPER = "SketchThinker-R1"
    SUMMARY = "thinks in short notes"
    INSTRUCTIONS = "Think in short notes of at most five words, one a line, without sentences. Then answer."

    def think(self, problem: Problem) -> Thinking:
        reply = yield Ask(self.begin(problem))
        return reply.text
