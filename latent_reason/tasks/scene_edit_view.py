"""Images of scenes: drawing them, and the templates that read their cells back."""

from __future__ import annotations

from functools import cache

import numpy as np

from . import canvas
from .scene_edit_rules import (
    NAMES,
    SIDE,
    SIZES,
)

RADII = {"plain": (7, 12), "other": (5, 9)}  # radii of small and large objects in pixels
LIKE = 0.82  # smallest fraction of a cell's pixels that match its template
FRAME = 30  # largest mean difference from the empty grid's lines and numbers


# -- images ------------------------------------------------------------------------------------------------------------
@cache
def sprites(skin: str) -> np.ndarray:
    """(65, cell, cell, 3) rendering of a cell for each code."""
    look = canvas.LOOKS[skin]
    cell, middle, made = look.cell, look.cell // 2, []
    for name in NAMES:
        grid = canvas.blank(cell, cell, look["paper"])
        canvas.frame(grid, 0, 0, cell, cell, look.line // 2, look["grey"])
        if name:
            size, hue, shape = name.split()
            r = RADII[skin][SIZES.index(size)]
            draw_shape(grid, shape, middle, r, max(2, r // 3), look["ink"])
            draw_shape(grid, shape, middle, r - 1, max(2, r // 3) - 1, look[hue])
        made.append(grid)
    return np.stack(made)


def draw_shape(grid: np.ndarray, shape: str, at: int, r: int, arm: int, colour: canvas.Colour) -> None:
    """Draw a shape that extends ``r`` pixels from (at, at) to each side. The arms of a cross are ``arm`` wide to each
    side."""
    if shape == "circle":
        canvas.disc(grid, at, at, r, colour)
    elif shape == "triangle":
        canvas.triangle(grid, at, at, r, "U", colour)
    else:
        for h, w in ((r - 1, r - 1),) if shape == "square" else ((r, arm), (arm, r)):
            canvas.rectangle(grid, at - h, at - w, 2 * h + 1, 2 * w + 1, colour)


@cache
def margins(skin: str) -> np.ndarray:
    """Rendering of the empty grid, with column numbers above and row numbers on the left."""
    look = canvas.LOOKS[skin]
    side, scale = (SIDE + 1) * look.cell, look.cell // 12
    grid = canvas.blank(side, side, look["paper"])
    for i in range(1, SIDE + 1):
        here, middle = i * look.cell + (look.cell - 5 * scale) // 2, (look.cell - 7 * scale) // 2
        canvas.text(grid, middle, here, str(i), look["ink"], scale)
        canvas.text(grid, here - scale, middle, str(i), look["ink"], scale)
    return paint(grid, [0] * SIDE * SIDE, skin)


def paint(grid: np.ndarray, scene: list[int], skin: str) -> np.ndarray:
    cell = canvas.LOOKS[skin].cell
    inner = sprites(skin)[scene].reshape(SIDE, SIDE, cell, cell, 3).transpose(0, 2, 1, 3, 4)
    grid[cell:, cell:] = inner.reshape(SIDE * cell, SIDE * cell, 3)
    return grid


def box_blur(grids: np.ndarray) -> np.ndarray:
    """(..., H, W, 3) 3 x 3 box blur with edge padding."""
    wide = np.pad(grids.astype(np.int16), [(0, 0)] * (grids.ndim - 3) + [(1, 1), (1, 1), (0, 0)], "edge")
    rows = wide[..., :-2, :, :] + wide[..., 1:-1, :, :] + wide[..., 2:, :, :]
    return (rows[..., :-2, :] + rows[..., 1:-1, :] + rows[..., 2:, :]) // 9


@cache
def soft(skin: str) -> np.ndarray:
    return box_blur(sprites(skin))
