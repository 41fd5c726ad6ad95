"""Demonstrations of tools, made from the solutions of tasks: what a model is trained on before it can call them.

The states of a solution become marks on the picture: points and lines. A baseline writes them in its own form, as a call or
as code, and its tool runs on them, so that what comes back in training is what comes back in use.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple

from PIL import Image as PILImage

from latent_reason.tasks import Item, Step, Task
from latent_reason.tasks.canvas import LOOKS
from latent_reason.trace import Trace

from .baseline import Problem
from .pictures import Point, Scale
from .tools import Observation, ToolBaseline, run_tool


class Mark(NamedTuple):
    """A point, or a line through points, in pixels of the last picture of an item."""

    kind: Literal["point", "line"]
    points: tuple[Point, ...]


class Marks(NamedTuple):
    """What a state shows on the picture of an item: all of it, and what the step before it did not show."""

    all: list[Mark]
    new: list[Mark]


def _elf(item: Item, state: dict, before: dict | None) -> Marks:
    side = item.images[-1].width / len(state["map"])
    row, column = state["elf"]
    point = Mark("point", (((column + 0.5) * side, (row + 0.5) * side),))
    return Marks([point], [point])


def _way(item: Item, state: dict, before: dict | None) -> Marks:
    side = item.images[-1].width / len(item.meta["maze"]["down"][0])
    path = [((column + 0.5) * side, (row + 0.5) * side) for row, column in state["cells"]]
    known = 0 if before is None else len(before["cells"]) - 1
    known = min(known, len(path) - 2)
    return Marks([Mark("line", tuple(path))], [Mark("line", tuple(path[max(known, 0) :]))])


def _holes(item: Item, state: dict, before: dict | None) -> Marks:
    side = LOOKS[item.meta["skin"]].cell // 2

    def points(rows: list[str]) -> list[Mark]:
        cells = [(r, c) for r, row in enumerate(rows) for c, sign in enumerate(row) if sign == "o"]
        return [Mark("point", (((c + 1.5) * side, (r + 1.5) * side),)) for r, c in cells]

    known = points(before["rows"]) if before else []
    every = points(state["rows"])
    return Marks(every, [mark for mark in every if mark not in known] or every)


MARKERS = {"frozenlake_plan": _elf, "plan_check": _elf, "wall_maze": _way, "fold_punch": _holes}


def read_marks(item: Item, step: Step, before: Step | None) -> Marks:
    """What the state of a step shows. ``before`` is the last step whose state was shown.

    Raises:
        ValueError: the task has no rule that says it.
    """
    if item.task not in MARKERS:
        raise ValueError(
            f"task {item.task!r} has no demonstrations of tools. Tasks that have: {', '.join(sorted(MARKERS))}."
        )
    return MARKERS[item.task](item, step.state, before.state if before else None)


def to_numbers(points: list[Point], size: tuple[int, int], scale: Scale) -> list[int]:
    """Points as the whole numbers of a call: x, y, x, y, ..."""
    factors = (1.0, 1.0) if scale == "pixels" else (1000 / size[0], 1000 / size[1])
    return [round(value * factor) for point in points for value, factor in zip(point, factors, strict=True)]


def find_region(marks: list[Mark], size: tuple[int, int]) -> list[Point]:
    """The two corners of a square of half the picture's shorter side around the end of the marks, within the picture."""
    side, (x, y) = min(size) // 2, marks[-1].points[-1]
    left, top = (round(min(max(at - side / 2, 0), length - side)) for at, length in zip((x, y), size, strict=True))
    return [(left, top), (left + side, top + side)]


@dataclass(frozen=True)
class Demonstrated(ToolBaseline):
    """A baseline with tools that a model can be trained to call."""

    @abstractmethod
    def write_action(self, item: Item, marks: Marks) -> str:
        """The call or the code that shows the marks."""

    def observe_action(self, call: str, item: Item, marks: Marks, observed: tuple) -> Observation:
        """What a call that :meth:`write_action` has written gives back."""
        action = self.find_action(call, Problem(item.id, tuple(item.images), item.question), observed)
        assert action is not None  # as it was written by the baseline itself
        return run_tool(action.run)

    def demonstrate(self, task: Task, item: Item) -> Trace:
        """The solution of an item: the words of a step, a call that shows its state, what comes back, and so on. After
        ``turns`` calls the rest is in words."""
        chat, texts, calls = self.begin(self.problem(task, item)), list[str](), 0
        observed, before = tuple[PILImage.Image, ...](), None
        for step in item.steps:
            texts.append(step.text)
            if step.sketch is None or calls == self.turns:
                continue
            marks = read_marks(item, step, before)
            call = self.write_action(item, marks)
            observation = self.observe_action(call, item, marks, observed)
            chat = chat.with_reply("\n".join([" ".join(texts), call]))
            chat = chat.with_user(observation.text, observation.pictures)
            observed, before, texts, calls = observed + observation.pictures, step, [], calls + 1
        return self.demonstration(task, item, chat.with_reply(" ".join([*texts, f"\\boxed{{{item.answer}}}"])))
