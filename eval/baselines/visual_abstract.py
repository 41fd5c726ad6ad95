"""Visual abstract thinking (2505.20164): an abstract of the picture by a fixed operator, beside the picture or in its place,
and no chain of thought in words.

The source draws abstracts with several models of edges and sketches. Here the operators have no weights: edges, or segments of
few colors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from eval.turns.baseline import Ask, Call, Problem, Prompted, Thinking
from eval.turns.pictures import draw_edges, draw_segments

OPERATORS = {"edges": draw_edges, "segments": draw_segments}


@dataclass(frozen=True)
class VisualAbstract(Prompted):
    """Args:
    operator: how a picture is abstracted.
    replaces: the abstract stands in place of the picture, instead of behind it.
    """

    operator: Literal["edges", "segments"] = "edges"
    replaces: bool = False

    PAPER = "arXiv 2505.20164"
    SUMMARY = "reads an abstract of the picture and answers at once"
    INSTRUCTIONS = "Each picture comes with its visual abstract. Look at it and give the answer at once."

    def instructions(self, problem: Problem) -> str:
        return "You see visual abstracts. Give the answer at once." if self.replaces else self.INSTRUCTIONS

    def think(self, problem: Problem) -> Thinking:
        pictures = []
        for picture in problem.pictures:
            abstract = yield Call(partial(OPERATORS[self.operator], picture))
            pictures += [abstract] if self.replaces else [picture, abstract]
        reply = yield Ask(problem.chat(self.preface(problem), pictures))
        return reply.text
