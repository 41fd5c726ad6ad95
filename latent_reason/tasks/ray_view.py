"""Images of mirror boards: drawing them and a ray, and reading the ray back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache

import numpy as np
from PIL import Image as PILImage

from . import canvas as c
from .item import Parsed
from .ray_rules import (
    BACK,
    DARTS,
    TURNED,
    WAYS,
    Cell,
    beside,
    crossed_borders,
    outside,
    ports,
)


@cache
def mirror_mask(skin: str, mirror: str) -> np.ndarray:
    """Boolean mask of the pixels of a cell that a mirror covers."""
    look = c.LOOKS[skin]
    cell, low, high = c.blank(look.cell, look.cell), look.cell // 6, look.cell - look.cell // 6 - 1
    columns = (high, low) if mirror == "/" else (low, high)
    c.line(cell, [(low, columns[0]), (high, columns[1])], look.line, "ink")
    return cell[:, :, 0] == 0


@cache
def empty(n: int, skin: str, entry: str) -> np.ndarray:
    """Rendering of the grid without mirrors, with port numbers in a margin of half a cell. A red arrow marks the
    entry."""
    look = c.LOOKS[skin]
    side, half, scale = look.cell, look.cell // 2, look.line // 2
    sheet = c.blank((n + 1) * side, (n + 1) * side, look["paper"])
    for k in range(n + 1):
        for y, x, h, w in ((half + k * side, half, 1, n * side + 1), (half, half + k * side, n * side + 1, 1)):
            c.rectangle(sheet, y, x, h, w, look["grey"])
    for port in ports(n):
        y, x = port_middle(port, n, look)
        if port == entry:
            c.triangle(sheet, y, x, half // 2 - 1, DARTS[BACK[port[0]]], look["red"])
        else:
            c.text(sheet, y - 7 * scale // 2, x - 5 * scale // 2, port[1:], look["ink"], scale)
    return sheet


def draw_mirrors(sheet: np.ndarray, rows: Sequence[str], cells: Iterable[Cell], skin: str) -> None:
    side, n = c.LOOKS[skin].cell, len(rows)
    for row, col in cells:
        if 0 <= row < n and 0 <= col < n and rows[row][col] != ".":
            cell = sheet[side // 2 + row * side :, side // 2 + col * side :][:side, :side]
            cell[mirror_mask(skin, rows[row][col])] = c.LOOKS[skin]["ink"]


@lru_cache(maxsize=8)
def full(rows: tuple[str, ...], entry: str, skin: str) -> np.ndarray:
    sheet = empty(len(rows), skin, entry).copy()
    draw_mirrors(sheet, rows, np.ndindex(len(rows), len(rows)), skin)
    return sheet


def render(board: dict, skin: str, state: dict | None = None) -> PILImage.Image:
    """Render the grid with its mirrors. With a state, also the ray so far as a line, and a blue arrow after the last
    mirror."""
    look, sheet = c.LOOKS[skin], full(tuple(board["map"]), board["entry"], skin).copy()
    borders = crossed_borders(board, state["hits"]) if state else []
    side, edge, wide = look.cell, look.cell // 2 - 2, look.line // 2 + 1
    inside = sheet[edge:-edge, edge:-edge]  # the line starts at the inner edge of the margin
    for cell, way in borders:
        v, u = (side * (1 + k) - edge for k in beside(cell, way))
        down, across = WAYS[way]
        c.rectangle(
            inside,
            min(v, v - down * side) - wide,
            min(u, u - across * side) - wide,
            abs(down) * side + 2 * wide,
            abs(across) * side + 2 * wide,
            look["pink"],
        )
    draw_mirrors(sheet, board["map"], {beside(cell, way) for cell, way in borders}, skin)
    if state and state["hits"]:
        y, x = arrow_center(state["hits"][-1], state["heading"], look)
        c.triangle(sheet, y, x, look.cell // 6, DARTS[state["heading"]], look["blue"])
    return c.picture(sheet)


def port_middle(port: str, n: int, look: c.Look) -> Cell:
    """The center (y, x) of a port in the margin."""
    side, quarter = look.cell, look.cell // 4
    y, x = (quarter if v < 0 else (n + 1) * side - quarter if v == n else side * (v + 1) for v in outside(port, n))
    return y, x


def arrow_center(cell: Cell, way: str, look: c.Look) -> Cell:
    """The center of the arrow that points in direction ``way`` from the center of a cell."""
    y, x = (look.cell * (v + 1) + step * look.cell // 4 for v, step in zip(cell, WAYS[way], strict=True))
    return y, x


def parse(image: PILImage.Image, board: dict, skin: str) -> Parsed:
    n, look = len(board["map"]), c.LOOKS[skin]
    side, half = look.cell, look.cell // 2
    sheet = c.pixels(image, (n + 1) * side, (n + 1) * side)
    found = c.labels(sheet, (look["blue"], look["red"]))

    def share(label: int, y: int, x: int, reach: int) -> float:
        return float((found[y - reach : y + reach + 1, x - reach : x + reach + 1] == label).mean())

    darts = {
        (cell, way): share(0, *arrow_center(cell, way, look), look.cell // 6)
        for cell in np.ndindex(n, n)
        for way in WAYS
    }
    (at, heading), best = max(darts.items(), key=lambda entry: entry[1])
    if best < 0.2 or sum(other > best / 2 for (cell, _), other in darts.items() if cell != at):
        return Parsed(None, 0.0, ("no single blue arrow",))
    entries = {port: share(1, *port_middle(port, n, look), half // 2 - 1) for port in ports(n)}
    entry = max(entries, key=lambda port: entries[port])
    faults = []
    if entries[entry] < 0.2:
        return Parsed(None, 0.0, ("no red arrow where the ray enters",))
    if entry != board["entry"]:
        faults.append("the ray enters elsewhere")

    rows = [
        "".join(mirror_at(sheet[half + row * side :, half + col * side :][:side, :side], look) for col in range(n))
        for row in range(n)
    ]
    changed = sum(a != b for a, b in zip("".join(rows), "".join(board["map"]), strict=True))
    if changed:
        faults.append(f"{changed} cells changed")

    lit = set()
    for row, col in np.ndindex(n + 1, n + 1):
        for way, free in (("N", col < n), ("W", row < n)):
            y, x = half + row * side + (way == "W") * half, half + col * side + (way == "N") * half
            if free and has_ray_color(sheet[y - 1 : y + 2, x - 1 : x + 2], look):
                lit.add(frozenset(((row, col), beside((row, col), way))))
    cell, way, hits = outside(entry, n), BACK[entry[0]], []
    while (border := frozenset((cell, beside(cell, way)))) in lit:
        lit.remove(border)
        cell = beside(cell, way)
        mirror = rows[cell[0]][cell[1]] if 0 <= cell[0] < n and 0 <= cell[1] < n else "."
        if mirror != ".":
            hits.append(list(cell))
            way = TURNED[mirror][way]
    if lit or not hits or hits[-1] != list(at) or list(cell) != list(at) or way != heading:
        return Parsed(None, best, (*faults, "the line does not lead from the entry to the blue arrow"))
    return Parsed({"hits": hits, "heading": heading}, best, tuple(faults))


def mirror_at(cell: np.ndarray, look: c.Look) -> str:
    """The mirror in the image of a cell, from the ends of its two diagonals. "?" if both are dark."""
    light, dark = sum(look["paper"]) / 3, sum(look["ink"]) / 3
    reach, middle = look.cell * 9 // 32, look.cell // 2
    ink = {}
    for mirror, across in (("/", -1), ("\\", 1)):
        ends = [
            cell[middle + k - 1 : middle + k + 1, middle + across * k - 1 : middle + across * k + 1]
            for k in (-reach, 1 - reach, reach - 1, reach)
        ]
        ink[mirror] = (light - np.mean(ends)) / (light - dark) > 0.35
    return "?" if all(ink.values()) else next((mirror for mirror, is_dark in ink.items() if is_dark), ".")


def has_ray_color(patch: np.ndarray, look: c.Look) -> bool:
    """Whether the patch around the center of a border has the ray's color instead of the grid's."""
    grid = (2 * np.array(look["paper"]) + look["grey"]) / 3
    colour = patch.mean((0, 1))
    return np.abs(colour - look["pink"]).sum() < np.abs(colour - grid).sum()
