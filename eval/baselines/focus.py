r"""Fast or slow (FOCUS, paper 47 of the list): answer at once where the model is sure, else name the key elements, highlight
them and answer.

The source draws several quick answers and calls a question easy where they agree; hard ones get an outside segmenter. Here, as
the cheaper form, a question is easy where the first token inside ``\boxed{}`` is ``margin`` times as likely as the second, and
the model names the elements as boxes that are drawn on the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from PIL import Image as PILImage

from eval.turns.baseline import Ask, Call, Problem, Prompted, Read, Thinking
from eval.turns.calls import ToolCall, find_all_calls
from eval.turns.pictures import Scale, ToolError, describe_scale, draw_mark
from latent_reason.values import Positive

KEY_ELEMENTS = (
    "Name the elements of the last picture that matter for the question, one box(x0, y0, x1, y1) for each, on lines of their "
    "own. Do not answer yet."
)


@dataclass(frozen=True)
class Focus(Prompted):
    """Args:
    margin: probability of the likeliest first token over that of the second, from which an answer is given at once.
    scale: what the numbers of a box mean.
    """

    margin: Positive = 4.0
    scale: Scale = "pixels"

    PAPER = "Fast or Slow? (FOCUS)"
    SUMMARY = "answers at once where it is sure, else highlights key elements first"
    INSTRUCTIONS = "Give the answer at once, without any reasoning."

    def think(self, problem: Problem) -> Thinking:
        chat = self.begin(problem)
        reading = yield Read(chat, reply="\\boxed{")
        if reading.margin >= self.margin or not problem.pictures:
            reply = yield Ask(chat)
            return reply.text
        asked = problem.chat(f"{KEY_ELEMENTS} {describe_scale(problem.pictures[-1], self.scale)}")
        named = yield Ask(asked, continues=True)
        picture = yield Call(partial(self._highlight, problem.pictures[-1], find_all_calls(named.text, ("box",))))
        pictures = [*problem.pictures[:-1], picture]
        reply = yield Ask(problem.chat(self.preface(problem), pictures))
        return reply.text

    def _highlight(self, picture: PILImage.Image, calls: list[ToolCall]) -> PILImage.Image:
        """The picture with the boxes; malformed ones are left out."""
        for call in calls:
            try:
                picture = picture if call.error else draw_mark(picture, call.name, call.numbers, self.scale)
            except ToolError:
                continue
        return picture
