"""Pictures of ``shortest_ways``: a FrozenLake board with a blue line from the elf along a way, and their reader.

The line is a part of the tiles, so a cell is one of 64: four grounds and the sides of the cell that the line meets.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from . import frozenlake_board as board
from . import frozenlake_view as view
from .item import Parsed

GROUNDS = "FHGE"  # E: the start with the elf
SIDES = {"U": 1, "D": 2, "L": 4, "R": 8}
OPPOSITE = {"U": "D", "D": "U", "L": "R", "R": "L"}
NUM_LINES = 1 << len(SIDES)  # tiles per ground: one for each set of sides
LINE = (40, 70, 230)
HALF_WIDTH, GAP = 9, 12  # of the line, and of the free square around the elf, the goal and a hole; in pixels of a tile
LEAST_CONFIDENCE = 0.4  # of a cell; it is 0 where the line is half drawn, and 0.3 where a third is missing


@cache
def _tiles(skin: str) -> np.ndarray:
    """(64, 64, 64, 3) the tiles, those of a ground side by side."""
    grounds = {ground: view.KINDS.index(ground) * view.WAYS for ground in "FHG"}
    grounds["E"] = view.KINDS.index("S") * view.WAYS + 1 + view.FACINGS.index("D")
    y, x = np.mgrid[: view.TILE, : view.TILE] - view.TILE // 2 + 0.5
    max_norm = np.maximum(abs(x), abs(y))
    arms = {"U": (abs(x) < HALF_WIDTH) & (y < 0), "L": (abs(y) < HALF_WIDTH) & (x < 0)}
    arms |= {"D": arms["U"][::-1], "R": arms["L"][:, ::-1]}
    tiles = view.tiles_of(skin)[[grounds[ground] for ground in GROUNDS]].repeat(NUM_LINES, 0)
    for number, tile in enumerate(tiles):
        ground, sides = GROUNDS[number // NUM_LINES], number % NUM_LINES
        line = (max_norm < HALF_WIDTH) & bool(sides)
        for side, bit in SIDES.items():
            line |= arms[side] & bool(sides & bit)
        tile[line & ((ground == "F") | (max_norm > GAP))] = LINE
    return tiles


@cache
def _templates(skin: str) -> np.ndarray:
    return view.blurred(_tiles(skin))


def render(state: dict, skin: str) -> Image.Image:
    """Render a board with its way, 64 pixels per cell."""
    rows, cells = state["map"], board.walk(state["map"], state["way"])
    numbers = np.array(
        [[GROUNDS.index(letter if letter in GROUNDS else "E") * NUM_LINES for letter in r] for r in rows]
    )
    for cell, move, there in zip(cells, state["way"], cells[1:], strict=False):
        if there != cell:  # no move off the board
            numbers[cell] |= SIDES[move]
            numbers[there] |= SIDES[OPPOSITE[move]]
    return view.joined(_tiles(skin)[numbers])


def parse(image: Image.Image, rows: list[str], skin: str) -> Parsed:
    """Parse an image of any size as a board of the size of ``rows`` with a way.

    Each cell is the nearest tile. A cell that is almost as near to another tile is a fault: it shows no way, or several
    at once. The state is None unless there is one elf, one goal and one line between them without holes, branches and
    loops. Cells that differ from ``rows`` are faults.
    """
    n = len(rows)
    distance = view.tile_distances(image, n, _templates(skin))
    nearest, other = np.partition(distance, 1, axis=1)[:, :2].T
    confidence = (1 - nearest / np.maximum(other, 1e-6)).clip(0, 1)
    best = distance.argmin(1)
    letters, sides = [GROUNDS[k] for k in best // NUM_LINES], best % NUM_LINES
    faults = [
        f"cell {i // n + 1} {i % n + 1} is {'unreadable' if nearest[i] > view.UNREADABLE else 'between two readings'}"
        for i in range(n * n)
        if nearest[i] > view.UNREADABLE or confidence[i] < LEAST_CONFIDENCE
    ]
    faults += [
        f"{letters.count(letter)} cells show the {what}"
        for letter, what in (("E", "elf"), ("G", "goal"))
        if letters.count(letter) != 1
    ]
    if not sides.any():
        faults.append("no way is drawn")
    state = None
    if not faults:
        shown = ["".join(letters[i : i + n]).replace("E", "S") for i in range(0, n * n, n)]
        way = follow(shown, sides.reshape(n, n))
        if way is None:
            faults.append("the line is no way from the elf to the goal")
        else:
            state = {"map": shown, "way": way}
            faults = [
                f"cell {r + 1} {c + 1} is {shown[r][c]}, not {rows[r][c]}"
                for r, c in np.ndindex(n, n)
                if shown[r][c] != rows[r][c]
            ]
    return Parsed(state, float(confidence.min()), tuple(faults))


def follow(rows: board.Rows, sides: np.ndarray) -> str | None:
    """The moves along a line. None if it does not lead from the start to the goal, meets a hole, or if more is drawn."""
    cell, left, way = board.find(rows, "S"), sides.copy(), ""
    while board.cell_at(rows, cell) not in "GH":
        moves = [move for move, bit in SIDES.items() if left[cell] & bit]
        if len(moves) != 1:
            return None
        there = board.step(rows, cell, moves[0])
        if there == cell or not left[there] & SIDES[OPPOSITE[moves[0]]]:
            return None
        left[cell] ^= SIDES[moves[0]]
        left[there] ^= SIDES[OPPOSITE[moves[0]]]
        cell, way = there, way + moves[0]
    return None if left.any() or board.cell_at(rows, cell) == "H" else way
