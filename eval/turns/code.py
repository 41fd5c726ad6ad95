"""Baselines that write code: it runs in the sandbox, and its pictures and prints come back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from PIL import Image as PILImage

from eval.sandbox import run_code

from .baseline import Problem
from .calls import find_code
from .tools import Action, Observation, ToolBaseline


@dataclass(frozen=True)
class CodeBaseline(ToolBaseline):
    """A model that writes one block of Python a turn.

    Class attributes:
        GETS_PICTURE: the code has the last picture of the problem, or the last one that it made, as ``image``.
    """

    RUNS_CODE = True
    GETS_PICTURE: ClassVar[bool] = False

    def find_action(self, text: str, problem: Problem, observed: tuple[PILImage.Image, ...]) -> Action | None:
        code, pictures = find_code(text), (*problem.pictures, *observed)
        image = pictures[-1] if self.GETS_PICTURE and pictures else None
        return Action(partial(observe_code, code.text, image), code.end) if code else None


def observe_code(code: str, image: PILImage.Image | None) -> Observation:
    """What code prints and draws. An error of the code is text."""
    ran = run_code(code, image)
    return Observation(ran.text.strip(), tuple(ran.pictures))
