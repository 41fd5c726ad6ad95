"""Views on demand ("Chatting with Images", ViLaVT; paper 28 of the list): the model names several regions, and they come back
encoded together.

The source has a vision encoder of its own that encodes several regions jointly under the words of the request. A stock
encoder cannot, so the regions are put side by side into one picture, which the encoder reads at once. There are no
demonstrations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from PIL import Image as PILImage

from eval.turns.baseline import Problem
from eval.turns.calls import ToolCall, find_calls
from eval.turns.pictures import Scale, ToolError, describe_scale, enlarge, read_box
from eval.turns.tools import Action, Observation, ToolBaseline

MOST = 6  # regions of one request
GAP = 4  # pixels between two regions


@dataclass(frozen=True)
class EmbedTools(ToolBaseline):
    """Args:
    scale: what the numbers of a call mean.
    """

    scale: Scale = "pixels"

    PAPER = "Chatting with Images (ViLaVT)"
    SUMMARY = "names several regions, which come back in one picture"
    INSTRUCTIONS = (
        "Think step by step. To compare regions of the last picture, write view(x0, y0, x1, y1) for each on lines of their own "
        "and stop. They are then shown to you side by side."
    )

    def instructions(self, problem: Problem) -> str:
        return " ".join([self.INSTRUCTIONS, *(describe_scale(p, self.scale) for p in problem.pictures[-1:])])

    def find_action(self, text: str, problem: Problem, observed: tuple) -> Action | None:
        calls = find_calls(text, ("view",))
        return Action(partial(self._view, calls, problem), calls[-1].end) if calls else None

    def _view(self, calls: list[ToolCall], problem: Problem) -> Observation:
        if not problem.pictures:
            raise ToolError("there is no picture to view.")
        picture, regions = problem.pictures[-1], []
        for call in calls[:MOST]:
            if call.error:
                raise ToolError(call.error)
            regions.append(enlarge(picture, read_box(call.name, call.numbers, picture.size, self.scale)))
        text = f"Only the first {MOST} regions are shown." if len(calls) > MOST else ""
        return Observation(text, (put_side_by_side(regions),))


def put_side_by_side(pictures: list[PILImage.Image]) -> PILImage.Image:
    """Pictures in one row, on white."""
    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    sheet, left = PILImage.new("RGB", (width, max(picture.height for picture in pictures)), "white"), 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + GAP
    return sheet
