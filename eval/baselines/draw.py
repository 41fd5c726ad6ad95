"""Draw: the model draws boxes, lines and points on the picture and looks at it again (ViLaSR, 2506.09965; V-Thinker; papers
52 and 35 of the list).

The source has boxes and lines, numbered frames of a video, and three stages of training: cold start, reflective rejection
sampling, and RL. Here marks are drawn on the last picture that was shown, calls can be learned from demonstrations, and
``python -m train.rejection_sampling --baseline draw`` keeps right chats of a model for the second stage. Calls are ``box(x0, y0, x1, y1)``,
``line(x, y, x, y, ...)`` and ``point(x, y)``, several at once, or a ``<tool_call>`` of the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from PIL import Image as PILImage

from eval.turns.baseline import Problem
from eval.turns.calls import ToolCall, find_calls
from eval.turns.demonstrations import Demonstrated, Marks, to_numbers
from eval.turns.pictures import Scale, ToolError, describe_scale, draw_mark
from eval.turns.tools import Action, Observation
from latent_reason.tasks import Item

NAMES = ("box", "line", "point")


@dataclass(frozen=True)
class Draw(Demonstrated):
    """Args:
    scale: what the numbers of a call mean.
    """

    scale: Scale = "pixels"

    PAPER = "arXiv 2506.09965"
    SUMMARY = "draws boxes, lines and points on the picture"
    INSTRUCTIONS = (
        "Think step by step. To draw on the picture, write box(x0, y0, x1, y1), line(x0, y0, x1, y1, ...) or point(x, y) on "
        "lines of their own and stop. The picture with your marks is then shown to you."
    )

    def instructions(self, problem: Problem) -> str:
        return " ".join([self.INSTRUCTIONS, *(describe_scale(p, self.scale) for p in problem.pictures[-1:])])

    def find_action(self, text: str, problem: Problem, observed: tuple) -> Action | None:
        calls = find_calls(text, NAMES)
        pictures = (*problem.pictures, *observed)
        return Action(partial(self._draw, calls, pictures), calls[-1].end) if calls else None

    def _draw(self, calls: list[ToolCall], pictures: tuple[PILImage.Image, ...]) -> Observation:
        if not pictures:
            raise ToolError("there is no picture to draw on.")
        picture = pictures[-1]
        for call in calls:
            if call.error:
                raise ToolError(call.error)
            picture = draw_mark(picture, call.name, call.numbers, self.scale)
        return Observation("", (picture,))

    def write_action(self, item: Item, marks: Marks) -> str:
        size = item.images[-1].size
        return "\n".join(
            f"{mark.kind}({', '.join(map(str, to_numbers(list(mark.points), size, self.scale)))})" for mark in marks.new
        )
