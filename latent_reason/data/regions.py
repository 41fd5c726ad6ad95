"""Regions of an image: boxes of other projects become sketches cropped from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL.Image import Image as Picture

from ..trace import Sketch
from .errors import DataError
from .record import box

OVERHANG = 0.05  # the share of a side by which a box may leave the image; it is cut there, as the sources do


def crop(picture: Picture, unit: str, value: Any, field: str, warn: Callable[[str, str], None]) -> Sketch:
    """Crop a box of at least one pixel from ``picture``. ``unit``: share (0-1 of width and height) or pixel.

    A box that leaves the image by at most 5 % of a side is cut, with a warning. Raises DataError (E15) for any other
    invalid box.
    """
    width, height = picture.size
    size = (width, height, width, height)
    if isinstance(value, list) and len(value) == 4 and all(type(x) in (int, float) for x in value):
        shares = [x / side for x, side in zip(value, size, strict=True)] if unit == "pixel" else value
        cut = [min(max(x, 0), 1) for x in shares]
        if cut != shares and all(abs(x - y) <= OVERHANG for x, y in zip(cut, shares, strict=True)):
            warn("box", f"{field}: a box leaves the image by up to {OVERHANG:.0%} of its side and is cut")
            shares = cut
        value = shares
    corners = box(value, field)
    if corners is None:
        raise DataError("E15", field, "expected 4 numbers [x0, y0, x1, y1]. Correct or drop it.")
    x0, y0, x1, y1 = (round(share * side) for share, side in zip(corners, size, strict=True))
    x0, y0 = min(x0, width - 1), min(y0, height - 1)
    return Sketch(picture.crop((x0, y0, max(x1, x0 + 1), max(y1, y0 + 1))), redundant=True, box=corners)
