"""Crop: the model names a box, and the enlarged region comes back (DeepEyes, 2505.14362; paper 27 of the list).

As in the source, a call is text of the model, and the region is one of the input picture. The source enlarges small regions
and learns when to call by RL with a bonus where the answer is right. Here a region is enlarged to the size of the picture,
and calls can be learned from demonstrations. A call is ``crop(x0, y0, x1, y1)``, or Qwen's ``<tool_call>`` with
``image_zoom_in_tool``. Of several input pictures the last one is cropped.

How much a model loses by reading the whole picture is the zoom gap of eval.dossier (``gold_crop``); answers that were found by
cropping are distilled into answers about the whole picture by ``train.rejection_sampling --answers-only``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from eval.turns.baseline import Problem
from eval.turns.calls import ToolCall, find_calls
from eval.turns.demonstrations import Demonstrated, Marks, find_region, to_numbers
from eval.turns.pictures import Scale, ToolError, describe_scale, enlarge, read_box
from eval.turns.tools import Action, Observation
from latent_reason.tasks import Item

NAMES = ("crop", "image_zoom_in_tool")


@dataclass(frozen=True)
class Crop(Demonstrated):
    """Args:
    scale: what the numbers of a call mean.
    """

    scale: Scale = "pixels"

    PAPER = "arXiv 2505.14362"
    SUMMARY = "names a box, and the enlarged region comes back"
    INSTRUCTIONS = (
        "Think step by step. To look closer at a region of the last picture, write crop(x0, y0, x1, y1) on a line of its own "
        "and stop. The enlarged region is then shown to you."
    )

    def instructions(self, problem: Problem) -> str:
        return " ".join([self.INSTRUCTIONS, *(describe_scale(p, self.scale) for p in problem.pictures[-1:])])

    def find_action(self, text: str, problem: Problem, observed: tuple) -> Action | None:
        calls = find_calls(text, NAMES)
        return Action(partial(self._crop, calls[0], problem), calls[0].end) if calls else None

    def _crop(self, call: ToolCall, problem: Problem) -> Observation:
        if call.error:
            raise ToolError(call.error)
        if not problem.pictures:
            raise ToolError("there is no picture to crop.")
        picture = problem.pictures[-1]
        return Observation("", (enlarge(picture, read_box(call.name, call.numbers, picture.size, self.scale)),))

    def write_action(self, item: Item, marks: Marks) -> str:
        size = item.images[-1].size
        return f"crop({', '.join(map(str, to_numbers(find_region(marks.new, size), size, self.scale)))})"
