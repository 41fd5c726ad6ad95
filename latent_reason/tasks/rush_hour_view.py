"""Images of yards: drawing cars, and the patches that read them back."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image as PILImage

from . import canvas
from .canvas import LOOKS
from .rush_hour_rules import (
    LETTERS,
    RED_ROW,
    Car,
    N,
)

PAINT = ("green", "blue", "yellow", "purple", "orange", "cyan", "pink")
FAR = 40  # largest mean difference between an image patch and the rendering of a car


@cache
def drawn_car(number: int, length: int, way: str, skin: str) -> np.ndarray:
    """(height, width, 3) rendering of a car with its letter on the first cell."""
    look = LOOKS[skin]
    side, gap, scale = look.cell, look.line // 2, look.cell // 12
    high, wide = (side, length * side) if way == "H" else (length * side, side)
    cells = canvas.blank(high, wide, look["paper"])
    paint = look[PAINT[(number - 1) % len(PAINT)] if number else "red"]
    canvas.rectangle(cells, gap, gap, high - 2 * gap, wide - 2 * gap, paint)
    canvas.frame(cells, gap, gap, high - 2 * gap, wide - 2 * gap, gap, look["ink"])
    ink = look["paper" if sum(paint) < 380 else "ink"]
    canvas.text(cells, (side - 7 * scale) // 2, (side - 5 * scale) // 2, LETTERS[number], ink, scale)
    return cells


@cache
def empty_yard(skin: str) -> np.ndarray:
    """Rendering of a yard without cars: a wall of half a cell with a gap on the right, and cells with thin grey
    borders."""
    look = LOOKS[skin]
    side, half = look.cell, look.cell // 2
    yard = canvas.blank((N + 1) * side, (N + 1) * side, look["ink"])
    canvas.rectangle(yard, half, half, N * side, N * side, look["paper"])
    canvas.rectangle(yard, half + RED_ROW * side, half + N * side, side, half, look["paper"])
    for row in range(N):
        for column in range(N):
            canvas.frame(yard, half + row * side, half + column * side, side, side, 1, look["grey"])
    return yard


def patch(yard: np.ndarray, car: Car, side: int) -> np.ndarray:
    """The pixels of a car's cells (a view)."""
    row, column, length, way = car
    top, left = side // 2 + row * side, side // 2 + column * side
    return yard[
        top : top + (side if way == "H" else length * side), left : left + (length * side if way == "H" else side)
    ]


def draw(cars: list[Car], skin: str) -> PILImage.Image:
    """Render a state as 7 x 7 cells, including half a cell of wall on each side."""
    yard = empty_yard(skin).copy()
    for number, car in enumerate(cars):
        patch(yard, car, LOOKS[skin].cell)[:] = drawn_car(number, car[2], car[3], skin)
    return canvas.picture(yard)
