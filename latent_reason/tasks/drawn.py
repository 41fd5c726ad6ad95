"""Base classes of tasks whose images are rendered with :mod:`canvas` in one of its styles."""

from __future__ import annotations

from typing import ClassVar

from ..values import Interval
from .base import Task
from .canvas import LOOKS, Look
from .stream import Stream


class DrawnTask(Task):
    """A task with a rendering style. ``skin``: ``plain``, or ``other`` with colors, cell sizes and line widths that no
    plain image has. Images are parsed with ``meta["skin"]``, so parsing needs only the image and ``meta``."""

    def __init__(self, *, skin: str = "plain", **options):
        super().__init__(**options)
        if skin not in LOOKS:
            raise ValueError(f"unknown skin {skin!r}. Use one of {', '.join(LOOKS)}.")
        self.skin = skin

    @property
    def look(self) -> Look:
        return LOOKS[self.skin]


class PlannedTask(DrawnTask):
    """A task whose answer is a plan of moves. ``bands``: (minimum, maximum) plan length of each level. ``chunk``:
    (minimum, maximum) number of moves between two sketches."""

    bands: ClassVar[dict[int, tuple[int, int]]]

    def __init__(self, *, chunk: Interval = (1, 3), **options):
        super().__init__(**options)
        if not set(self.levels) <= set(self.bands):
            raise ValueError(f"The level is 1 to {max(self.bands)}, with five more moves per level; got {self.levels}.")
        self.chunk = chunk

    def targets(self, level: int, stream: Stream) -> int:
        """The number of moves."""
        return stream.between(*self.bands[level])
