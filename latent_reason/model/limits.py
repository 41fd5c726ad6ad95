"""Limits of what a model reads: pixels of an image, and positions of a row.

A checkpoint keeps those that it was trained with: pixels in its image processor, positions in its notes. Evaluation uses
them unless it is told otherwise.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .backbones.base import Backbone

NOTE = "limits"  # in the notes of a checkpoint


@dataclass(frozen=True)
class InputLimits:
    """Fewest and most pixels of an image, which is resized to them, and most positions of a row, images and answer
    included. None: as it is."""

    min_pixels: int | None = None
    max_pixels: int | None = None
    max_length: int | None = None

    @classmethod
    def of(cls, backbone: Backbone) -> InputLimits:
        """Those of a backbone; without ``max_length`` where only the stock model has a limit."""
        least, most = backbone.pixel_limits or (None, None)
        return cls(least, most, backbone.length_limit)

    @classmethod
    def of_notes(cls, notes: dict[str, Any]) -> InputLimits:
        """The positions that the notes of a checkpoint tell; its image processor has the pixels."""
        found = notes.get(NOTE)
        length = found.get("max_length") if isinstance(found, dict) else None
        return cls(max_length=length if type(length) is int and length > 0 else None)

    def apply_to(self, backbone: Backbone) -> None:
        """Set those that are not None.

        Raises:
            ValueError: the backbone resizes every image to one size, or has no room for one token.
        """
        if self.min_pixels or self.max_pixels:
            backbone.set_pixel_limits(self.min_pixels, self.max_pixels)
        if self.max_length:
            backbone.set_max_length(self.max_length)

    def to_json(self) -> dict[str, int | None]:
        return asdict(self)
