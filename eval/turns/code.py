"""Baselines that write code: it runs in the sandbox, and its pictures and prints come back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from PIL import Image as PILImage

from eval.sandbox import run_code

from .baseline import Problem
from .calls import find_code
from .tools import Action, Seen, ToolBaseline


@dataclass(frozen=True)
class CodeBaseline(ToolBaseline):
    """A model that writes one block of Python a turn. Only what the sandbox shows comes back."""

    RUNS_CODE = True

    def code_picture(self, problem: Problem, shown: tuple[PILImage.Image, ...]) -> PILImage.Image | None:
        """The picture that the code has as ``image``; None: it has none."""
        return None

    def find_action(self, text: str, problem: Problem, shown: tuple[PILImage.Image, ...]) -> Action | None:
        code = find_code(text)
        return Action(partial(see_code, code.text, self.code_picture(problem, shown)), code.end) if code else None


def see_code(code: str, image: PILImage.Image | None) -> Seen:
    """What code prints and draws. An error of the code is text."""
    ran = run_code(code, image)
    return Seen(ran.text.strip(), tuple(ran.pictures))
