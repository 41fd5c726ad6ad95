"""The boards of ``ray``: their sides and mirrors, and the way of a ray."""

from __future__ import annotations

import numpy as np

from .item import Rejected
from .stream import Stream

Cell = tuple[int, int]

WAYS = {"N": (-1, 0), "E": (0, 1), "S": (1, 0), "W": (0, -1)}
DARTS = {"N": "U", "E": "R", "S": "D", "W": "L"}
COMPASS = {"N": "north", "E": "east", "S": "south", "W": "west"}
TURNED = {
    "/": dict(zip("NESW", "ENWS", strict=True)),
    "\\": dict(zip("NESW", "WSEN", strict=True)),
    ".": dict(zip("NESW", "NESW", strict=True)),
}
BACK = dict(zip("NESW", "SWNE", strict=True))
BUDGET = 300  # largest number of cells sampled for one ray


def ports(n: int) -> list[str]:
    return [f"{side}{k}" for side in "NESW" for k in range(1, n + 1)]


def outside(port: str, n: int) -> Cell:
    """The cell just outside the grid at a port."""
    side, k = port[0], int(port[1:]) - 1
    return {"N": (-1, k), "S": (n, k), "W": (k, -1), "E": (k, n)}[side]


def beside(cell: Cell, way: str) -> Cell:
    return cell[0] + WAYS[way][0], cell[1] + WAYS[way][1]


def next_mirror(rows: list[str], cell: Cell, heading: str) -> tuple[Cell, str]:
    """The next mirror from a cell and the direction after it, or the cell outside the grid where the ray leaves."""
    cell = beside(cell, heading)
    while 0 <= cell[0] < len(rows) and 0 <= cell[1] < len(rows):
        if rows[cell[0]][cell[1]] != ".":
            return cell, TURNED[rows[cell[0]][cell[1]]][heading]
        cell = beside(cell, heading)
    return cell, heading


def solve(board: dict) -> tuple[list[dict], str]:
    """The states after each mirror, and the exit port."""
    rows, n = board["map"], len(board["map"])
    cell, heading = next_mirror(rows, outside(board["entry"], n), BACK[board["entry"][0]])
    states, hits = [], []
    while 0 <= cell[0] < n and 0 <= cell[1] < n:
        hits.append(list(cell))
        states.append({"hits": list(hits), "heading": heading})
        cell, heading = next_mirror(rows, cell, heading)
    return states, f"{heading}{(cell[1] if heading in 'NS' else cell[0]) + 1}"


def sample(n: int, entry: str, most: int, mirrors: int, limit: int, stream: Stream) -> list[str]:
    """Sample rows with ``mirrors`` mirrors (up to ``limit`` if the ray needs more), of which the ray hits ``most``.

    The cells on the ray are sampled first, with backtracking, when the ray enters them.
    """
    rows: dict[Cell, str] = {}
    chance, budget = max(mirrors / n**2, most / (3 * n)), BUDGET

    def leads(cell: Cell, heading: str, hits: int) -> bool:
        nonlocal budget
        while 0 <= cell[0] < n and 0 <= cell[1] < n:
            if cell not in rows:
                bends = stream.shuffle("/\\") if hits < most else []
                options = [*bends, "."] if stream.unit() < chance else [".", *bends]
                for rows[cell] in options:
                    budget -= 1
                    after = TURNED[rows[cell]][heading]
                    if budget > 0 and leads(beside(cell, after), after, hits + (rows[cell] != ".")):
                        return True
                del rows[cell]
                return False
            hits += rows[cell] != "."
            heading = TURNED[rows[cell]][heading]
            cell = beside(cell, heading)
        return hits == most

    way = BACK[entry[0]]
    if not leads(beside(outside(entry, n), way), way, 0):
        raise Rejected("other number of reflections")
    used = sum(mirror != "." for mirror in rows.values())
    if used > limit:
        raise Rejected("too many mirrors")
    rest = stream.shuffle([cell for cell in np.ndindex(n, n) if cell not in rows])
    rows.update({cell: stream.choice("/\\") for cell in rest[: max(mirrors - used, 0)]})
    return ["".join(rows.get((row, col), ".") for col in range(n)) for row in range(n)]


def crossed_borders(board: dict, hits: list[Cell]) -> list[tuple[Cell, str]]:
    """The borders that the ray crosses up to the last of ``hits``, as (cell before the border, direction). Hits that no
    real ray has are connected along the row, then along the column."""
    n = len(board["map"])
    cell, borders = outside(board["entry"], n), []
    for hit in hits:
        for axis, (less, more) in enumerate((("N", "S"), ("W", "E"))):
            while cell[axis] != hit[axis]:
                way = more if hit[axis] > cell[axis] else less
                borders.append((cell, way))
                cell = beside(cell, way)
    return borders
