"""Images of folded sheets: drawing them, and the templates that read their cells back."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image as PILImage

from . import canvas
from .canvas import LOOKS
from .fold_punch_rules import (
    AXES,
    BITS,
    POINTS,
    Cell,
    cells_of,
    fold_map,
)

MISFIT = 30  # largest mean difference (0-255) between a cell and the nearest template
SHADES = ("paper", "yellow", "ink", "grey", "blue", "red")  # colors of a rendered sheet, by index
PAPER, SHEET, INK, GRID, DASH, ARROW = range(len(SHADES))


# -- images ------------------------------------------------------------------------------------------------------------
@cache
def empty_image(skin: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The empty image: (H, W) color indices with row and column numbers, and (H, W) the quarter of each pixel (4 n n:
    none)."""
    s = LOOKS[skin].cell // 2
    numbers = canvas.blank((n + 2) * s, (n + 2) * s)
    for k in range(n):
        at = (k + 1) * s + (s - 5) // 2
        canvas.text(numbers, (s - 7) // 2, at, str(k + 1))
        canvas.text(numbers, at - 1, (s - 5) // 2, str(k + 1))
    shades = np.where(numbers[..., 0] == 0, INK, PAPER).astype(np.uint8)
    y, x = np.mgrid[:s, :s]
    quarter = np.where(y > x, np.where(y + x >= s, 2, 3), np.where(y + x >= s, 1, 0))
    under = np.full(shades.shape, 4 * n * n)
    under[s:-s, s:-s] = 4 * np.arange(n * n).reshape(n, n).repeat(s, 0).repeat(s, 1) + np.tile(quarter, (n, n))
    return shades, under


@cache
def hole_mask(s: int) -> np.ndarray:
    y, x = np.mgrid[:s, :s] * 2 - s + 1
    return y * y + x * x <= (s // 2) ** 2


@cache
def palette(skin: str) -> np.ndarray:
    return np.array([LOOKS[skin][name] for name in SHADES], np.uint8)


def quarters(rows: list[str]) -> np.ndarray:
    """(4 n n) mask of the quarters with paper."""
    bits = np.array([BITS[letter] for row in rows for letter in row])
    return (bits[:, None] >> np.arange(4) & 1).ravel().astype(bool)


def shade(skin: str, rows: list[str]) -> np.ndarray:
    """(H, W) color indices of a rendered sheet."""
    s, thick = LOOKS[skin].cell // 2, LOOKS[skin].line // 2
    empty, under = empty_image(skin, len(rows))
    paper = np.append(quarters(rows), False)[under]
    shades = empty.copy()
    shades[paper] = SHEET
    shades[s : -s + 1 : s, s : -s + 1] = shades[s : -s + 1, s : -s + 1 : s] = GRID
    inner = paper.copy()
    inner[thick:] &= paper[:-thick]
    inner[:-thick] &= paper[thick:]
    inner[:, thick:] &= paper[:, :-thick]
    inner[:, :-thick] &= paper[:, thick:]
    shades[paper & ~inner] = INK
    for r, c in cells_of(rows):
        shades[r * s : r * s + s, c * s : c * s + s][hole_mask(s)] = INK
    return shades


def draw_sheet(skin: str, rows: list[str]) -> PILImage.Image:
    return canvas.picture(palette(skin).take(shade(skin, rows), 0))


def line_of(n: int, to: str, at: int) -> tuple[Cell, Cell]:
    """The two grid corners (y, x) at the ends of a fold's line."""
    if to in AXES:
        return ((0, at), (n, at)) if to in "LR" else ((at, 0), (at, n))
    if to in ("UL", "DR"):
        return (min(at, n), max(at - n, 0)), (max(at - n, 0), min(at, n))
    return (max(at, 0), max(-at, 0)), (min(n + at, n), min(n - at, n))


@cache
def dashes(skin: str, n: int, to: str, at: int) -> np.ndarray:
    """(H, W) mask of the dashed line of a fold."""
    s, (y0, x0), (y1, x1) = LOOKS[skin].cell // 2, *line_of(n, to, at)
    image = canvas.blank((n + 2) * s, (n + 2) * s)
    parts = 2 * max(abs(y1 - y0), abs(x1 - x0))
    spots = [
        (s + (y0 * (parts - i) + y1 * i) * s // parts, s + (x0 * (parts - i) + x1 * i) * s // parts)
        for i in range(parts + 1)
    ]
    for i in range(0, parts, 2):
        canvas.line(image, spots[i : i + 2], LOOKS[skin].line // 2 + 1, "ink")
    return image[..., 0] == 0


def draw_fold(skin: str, rows: list[str], fold: dict) -> PILImage.Image:
    """Render the sheet with the dashed line of its next fold and an arrow from the flap to its new position."""
    s, n, (dy, dx) = LOOKS[skin].cell // 2, len(rows), POINTS[fold["to"]]
    shades, move = shade(skin, rows), fold_map(n, **fold)
    shades[dashes(skin, n, **fold)] = DASH
    flap = np.flatnonzero(quarters(rows) & (move != np.arange(4 * n * n)))
    (y0, x0), (y1, x1) = (
        ((int((f // 4 // n).mean() * 2) + 3) * s // 2, (int((f // 4 % n).mean() * 2) + 3) * s // 2)
        for f in (flap, move[flap])
    )
    reach, size = max(abs(y1 - y0), abs(x1 - x0), s), s // 3
    tip, thick = (y0 + dy * reach, x0 + dx * reach), LOOKS[skin].line // 2
    for k in range(reach - size):
        y, x = y0 + dy * k - thick // 2, x0 + dx * k - thick // 2
        shades[y : y + thick, x : x + thick] = ARROW
    y, x = np.mgrid[-2 * size : 2 * size + 1, -2 * size : 2 * size + 1]
    along, across = -y * dy - x * dx, y * dx - x * dy
    head = (np.abs(across) <= along) & (along <= (size + 1) * (abs(dy) + abs(dx)))
    shades[y[head] + tip[0], x[head] + tip[1]] = ARROW
    return canvas.picture(palette(skin).take(shades, 0))


@cache
def templates(skin: str) -> np.ndarray:
    """(7, h, w, 3) rendering of the inner pixels of each letter of ``BITS``."""
    s, edge = LOOKS[skin].cell // 2, LOOKS[skin].cell // 16
    return np.array(
        [
            np.asarray(draw_sheet(skin, [letter]), np.int16)[s + edge : 2 * s - edge, s + edge : 2 * s - edge]
            for letter in BITS
        ]
    )
