"""Rendering and parsing of task images with integer coordinates, flat colors and no font files.

Images are (H, W, 3) uint8 arrays; :func:`picture` converts them to PIL. Any two colors of a style differ by at least 64
in some channel, so a pixel within 30 of a color in every channel matches only that color.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image

Colour = tuple[int, int, int]
Ink = str | Colour | int  # a name, a color, or a number on a canvas of one channel

COLOURS: dict[str, Colour] = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (50, 90, 220),
    "yellow": (235, 200, 40),
    "purple": (140, 60, 180),
    "orange": (240, 130, 30),
    "cyan": (40, 180, 190),
    "grey": (128, 128, 128),
    "ink": (0, 0, 0),
    "paper": (255, 255, 255),
    "pink": (230, 30, 200),
}
OTHER: dict[str, Colour] = {  # colors that no image in the plain style has
    "red": (170, 0, 90),
    "green": (110, 200, 110),
    "blue": (20, 30, 130),
    "yellow": (250, 240, 150),
    "purple": (180, 110, 240),
    "orange": (190, 90, 0),
    "cyan": (100, 230, 240),
    "grey": (90, 110, 110),
    "ink": (40, 20, 20),
    "paper": (230, 230, 230),
    "pink": (255, 130, 160),
}
NEAR = 30  # largest difference from a color in every channel
INNER = 0.6  # the part of a cell's side that is parsed

GLYPHS = {  # 5 x 7, row by row from the top, the most significant of 5 bits on the left
    "0": "0E11131519110E",
    "1": "040C040404040E",
    "2": "0E11010204081F",
    "3": "1F02040201110E",
    "4": "02060A121F0202",
    "5": "1F101E0101110E",
    "6": "0608101E11110E",
    "7": "1F010204080808",
    "8": "0E11110E11110E",
    "9": "0E11110F01020C",
    "A": "0E11111F111111",
    "B": "1E11111E11111E",
    "C": "0E11101010110E",
    "D": "1C12111111121C",
    "E": "1F10101E10101F",
    "F": "1F10101E101010",
    "G": "0E11101711110F",
    "H": "1111111F111111",
    "I": "0E04040404040E",
    "J": "0702020202120C",
    "K": "11121418141211",
    "L": "1010101010101F",
    "M": "111B1515111111",
    "N": "11111915131111",
    "O": "0E11111111110E",
    "P": "1E11111E101010",
    "Q": "0E11111115120D",
    "R": "1E11111E141211",
    "S": "0F10100E01011E",
    "T": "1F040404040404",
    "U": "1111111111110E",
    "V": "11111111110A04",
    "W": "11111115151B11",
    "X": "11110A040A1111",
    "Y": "11110A04040404",
    "Z": "1F01020408101F",
    " ": "00000000000000",
    "?": "0E110102040004",
    "+": "0004041F040400",
    "-": "0000001F000000",
}


@dataclass(frozen=True)
class Look:
    """A rendering style: colors by name, cell size and line width in pixels."""

    colours: dict[str, Colour]
    cell: int
    line: int

    def __getitem__(self, name: str) -> Colour:
        return self.colours[name]


LOOKS = {"plain": Look(COLOURS, 32, 4), "other": Look(OTHER, 24, 2)}


def blank(height: int, width: int, colour: str | Colour = "paper") -> np.ndarray:
    return np.full((height, width, 3), rgb(colour), np.uint8)


def rgb(colour: Ink) -> Colour | int:
    return COLOURS[colour] if isinstance(colour, str) else colour


def rectangle(canvas: np.ndarray, top: int, left: int, height: int, width: int, colour: Ink) -> None:
    """Fill a rectangle. Parts outside the canvas are clipped."""
    canvas[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = rgb(colour)


def frame(canvas: np.ndarray, top: int, left: int, height: int, width: int, thick: int, colour: Ink) -> None:
    """Draw the border of a rectangle, ``thick`` pixels wide, inside it."""
    for y, x, h, w in (
        (top, left, thick, width),
        (top + height - thick, left, thick, width),
        (top, left, height, thick),
        (top, left + width - thick, height, thick),
    ):
        rectangle(canvas, y, x, h, w, colour)


def disc(canvas: np.ndarray, y: int, x: int, radius: int, colour: Ink) -> None:
    """Fill all pixels at most ``radius`` from (y, x)."""
    polygon_mask(
        canvas,
        lambda v, u: (v - y) ** 2 + (u - x) ** 2 <= radius * radius,
        (y - radius, x - radius, y + radius, x + radius),
        colour,
    )


def polygon_mask(canvas: np.ndarray, inside, box: tuple[int, int, int, int], colour: Ink) -> None:
    """Fill the pixels (y, x) of a box (top, left, bottom, right) where ``inside(y, x)``, called with arrays, is true."""
    top, left, bottom, right = (max(0, v) for v in box)
    y, x = np.mgrid[top : min(bottom + 1, canvas.shape[0]), left : min(right + 1, canvas.shape[1])]
    if y.size:
        canvas[y[0, 0] : y[-1, 0] + 1, x[0, 0] : x[0, -1] + 1][inside(y, x)] = rgb(colour)


def triangle(canvas: np.ndarray, y: int, x: int, size: int, way: str, colour: Ink) -> None:
    """Fill a triangle around (y, x), ``size`` to each side, that points in the direction ``way``: U, D, L or R."""

    def inside(v, u):
        along, across = {"U": (v - y, u - x), "D": (y - v, u - x), "L": (u - x, v - y), "R": (x - u, v - y)}[way]
        return 2 * abs(across) <= along + size

    polygon_mask(canvas, inside, (y - size, x - size, y + size, x + size), colour)


def line(canvas: np.ndarray, points: Sequence[tuple[int, int]], thick: int, colour: Ink) -> None:
    """Draw a polyline through (y, x) points, with a square brush of ``thick`` pixels."""
    half = thick // 2
    for (y0, x0), (y1, x1) in pairwise(points):
        steps = max(abs(y1 - y0), abs(x1 - x0), 1)
        for i in range(steps + 1):
            y, x = y0 + (y1 - y0) * i // steps, x0 + (x1 - x0) * i // steps
            rectangle(canvas, y - half, x - half, thick, thick, colour)


def text(canvas: np.ndarray, top: int, left: int, words: str, colour: Ink = "ink", scale: int = 1) -> None:
    """Draw capital letters and digits of 5 x 7 pixels times ``scale``, one column apart."""
    for number, letter in enumerate(words):
        rows = bytes.fromhex(GLYPHS[letter])
        mask = np.array([[row >> (4 - i) & 1 for i in range(5)] for row in rows], bool)
        mask = mask.repeat(scale, 0).repeat(scale, 1)
        y, x = top, left + number * 6 * scale
        canvas[y : y + mask.shape[0], x : x + mask.shape[1]][mask] = rgb(colour)


def picture(canvas: np.ndarray) -> Image.Image:
    return Image.fromarray(canvas)


# -- reading -----------------------------------------------------------------------------------------------------------
def pixels(image: Image.Image, height: int, width: int) -> np.ndarray:
    """An image of any size, resized to ``height`` x ``width``, as an array."""
    image = image.convert("RGB")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)


def labels(canvas: np.ndarray, colours: Sequence[str | Colour]) -> np.ndarray:
    """(H, W) index of the color that each pixel matches, -1 for no match."""
    table = np.array([rgb(c) for c in colours], np.int16)
    channels = [canvas[:, :, i].astype(np.int16) for i in range(3)]  # an axis of three is slow to reduce
    off = [
        np.maximum.reduce([np.abs(c - value) for c, value in zip(channels, colour, strict=True)]) for colour in table
    ]
    best = np.argmin(off, 0)
    return np.where(np.minimum.reduce(off) <= NEAR, best, -1)


def majority(found: np.ndarray, top: int, left: int, height: int, width: int) -> tuple[int, float]:
    """(label, fraction) of the most frequent label in the inner part of a cell. Label -1: no color."""
    y, x = int(height * (1 - INNER) / 2), int(width * (1 - INNER) / 2)
    inner = found[top + y : top + height - y, left + x : left + width - x].ravel()
    if not inner.size:
        return -1, 0.0
    counts = np.bincount(inner + 1)
    return int(counts.argmax()) - 1, float(counts.max() / inner.size)
