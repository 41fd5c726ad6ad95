"""Whiteboard of thought (2406.14562): the model writes code that draws, the picture comes back, and it answers.

The source asks in three parts: write code of Turtle or Matplotlib that draws what helps, run it, answer from the picture; its
questions have no picture of their own. Here the input picture stays in the chat, the code begins on an empty board, and there
may be several turns. Demonstrations draw the state of each step with Pillow, on a board of the size of the last picture: the
points and lines that change, and not what the picture in the chat shows already.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image as PILImage
from PIL import ImageDraw

from eval.turns.code import CodeBaseline
from eval.turns.demonstrations import Demonstrated, Mark, Marks
from eval.turns.tools import Observation
from latent_reason.tasks import Item


@dataclass(frozen=True)
class Whiteboard(CodeBaseline, Demonstrated):
    PAPER = "arXiv 2406.14562"
    SUMMARY = "writes code that draws on an empty board, and sees the picture"
    INSTRUCTIONS = (
        "Think step by step. To draw what you have in mind, write one block of Python code in ```python fences and stop. You "
        "may use turtle, matplotlib or Pillow, and show(picture) for a Pillow picture. What it draws is then shown to you."
    )

    def write_action(self, item: Item, marks: Marks) -> str:
        size, radius = item.images[-1].size, _radius(item)
        lines = []
        for mark in marks.all:
            box = _extent(mark, radius)
            lines.append(f'd.line({box}, "red", {radius})' if mark.kind == "line" else f'd.ellipse({box}, "red")')
        begin = ["from PIL import Image, ImageDraw", f'b = Image.new("RGB", {size}, "white")', "d = ImageDraw.Draw(b)"]
        return "\n".join(["```python", *begin, *lines, "show(b)", "```"])

    def observe_action(self, call: str, item: Item, marks: Marks, observed: tuple) -> Observation:
        """What the code draws, drawn here: a process for each of thousands of demonstrations would take hours."""
        board, radius = PILImage.new("RGB", item.images[-1].size, "white"), _radius(item)
        pen = ImageDraw.Draw(board)
        for mark in marks.all:
            if mark.kind == "line":
                pen.line(_extent(mark, radius), "red", radius)
            else:
                pen.ellipse(_extent(mark, radius), "red")
        return Observation("", (board,))


def _radius(item: Item) -> int:
    """Of a point, and the width of a line, in pixels."""
    return max(3, min(item.images[-1].size) // 30)


def _extent(mark: Mark, radius: int) -> list[int]:
    """The points of a line, or the box of a disc, as whole numbers."""
    points = [round(value) for point in mark.points for value in point]
    if mark.kind == "line":
        return points
    x, y = points
    return [x - radius, y - radius, x + radius, y + radius]
