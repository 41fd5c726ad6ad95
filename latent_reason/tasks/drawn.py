"""What tasks drawn on the common canvas share: a look, which their pictures are drawn and read with."""

from __future__ import annotations

from .base import Task
from .canvas import LOOKS, Look


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
