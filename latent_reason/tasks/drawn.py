"""What tasks drawn on the common canvas share: a look, which their pictures are drawn and read with."""

from __future__ import annotations

from typing import ClassVar

from .base import Task
from .canvas import LOOKS, Look
from .stream import Stream


class DrawnTask(Task):
    """``skin``: ``plain``, or ``other`` with colours, cell sizes and lines that no plain picture has. A picture is read
    by ``meta["skin"]``, so that parsing needs the picture and ``meta`` alone."""

    def __init__(self, *, skin: str = "plain", **options):
        super().__init__(**options)
        if skin not in LOOKS:
            raise ValueError(f"skin={skin!r}: one of {', '.join(LOOKS)}.")
        self.skin = skin

    @property
    def look(self) -> Look:
        return LOOKS[self.skin]


class PlannedTask(DrawnTask):
    """A plan of moves, of as many as ``bands`` says for a level; ``chunk``: fewest and most moves between two
    sketches."""

    bands: ClassVar[dict[int, tuple[int, int]]]

    def __init__(self, *, chunk: tuple[int, int] = (1, 3), **options):
        super().__init__(**options)
        if not set(self.levels) <= set(self.bands):
            raise ValueError(f"the level is 1 to {max(self.bands)}, five more moves each; got {self.levels}")
        if not 1 <= chunk[0] <= chunk[1]:
            raise ValueError(f"chunk is the fewest and the most moves between two sketches, at least 1; got {chunk}")
        self.chunk = chunk

    def targets(self, level: int, stream: Stream) -> int:
        """The number of moves."""
        return stream.between(*self.bands[level])
