"""The paper of ``fold_punch``: where its quarters lie after folds, and the holes in the unfolded sheet."""

from __future__ import annotations

from functools import cache

import numpy as np

from .item import Rejected

AXES, CORNERS = ("L", "R", "U", "D"), ("UL", "UR", "DL", "DR")
BACK = {"L": "R", "R": "L", "U": "D", "D": "U", "UL": "DR", "DR": "UL", "UR": "DL", "DL": "UR"}
POINTS = {
    "L": (0, -1),
    "R": (0, 1),
    "U": (-1, 0),
    "D": (1, 0),
    "UL": (-1, -1),
    "UR": (-1, 1),
    "DL": (1, -1),
    "DR": (1, 1),
}
BITS = {".": 0, "#": 15, "o": 15, "A": 9, "B": 3, "C": 6, "D": 12}  # quarters: 1 top, 2 right, 4 bottom, 8 left
LETTERS = {bits: letter for letter, bits in BITS.items() if letter != "o"}
SMALLEST, MOST_HOLES, TRIES = 8, 16, 40  # smallest flap in quarters, most holes of an answer, tries per fold

Cell = tuple[int, int]


# -- paper -------------------------------------------------------------------------------------------------------------
@cache
def fold_map(n: int, to: str, at: int) -> np.ndarray:
    """(4 n n) the target of each quarter under a fold: itself if it is not behind the line, -1 if off the sheet."""
    r, c, q = np.mgrid[:n, :n, :4].reshape(3, -1)
    y, x = (
        6 * r + 3 + np.array([-2, 0, 2, 0])[q],
        6 * c + 3 + np.array([0, 2, 0, -2])[q],
    )  # centers; a cell is 6 units wide
    k = 6 * at
    behind, v, u = {
        "L": (x > k, y, 2 * k - x),
        "R": (x < k, y, 2 * k - x),
        "U": (y > k, 2 * k - y, x),
        "D": (y < k, 2 * k - y, x),
        "UL": (x + y > k, k - x, k - y),
        "DR": (x + y < k, k - x, k - y),
        "UR": (y - x > k, x + k, y - k),
        "DL": (y - x < k, x + k, y - k),
    }[to]
    inside = (v >= 0) & (v < 6 * n) & (u >= 0) & (u < 6 * n)
    dy, dx = v % 6 - 3, u % 6 - 3
    quarter = np.where(dx == 0, np.where(dy < 0, 0, 2), np.where(dx > 0, 1, 3))
    return np.where(behind, np.where(inside, (v // 6 * n + u // 6) * 4 + quarter, -1), np.arange(4 * n * n))


def apply_fold(where: np.ndarray, move: np.ndarray) -> np.ndarray | None:
    """The position of each quarter after one more fold. None if the flap is too small or does not land on paper."""
    paper = np.zeros(len(move), bool)
    paper[where] = True
    flap = paper & (move != np.arange(len(move)))
    land = move[flap]
    return move[where] if len(land) >= SMALLEST and (land >= 0).all() and paper[land].all() else None


def positions_by_fold(n: int, folds: list[dict]) -> list[np.ndarray]:
    """The position of each quarter of the open sheet after 0, 1, ... folds."""
    places = [np.arange(4 * n * n)]
    for fold in folds:
        places.append(fold_map(n, fold["to"], fold["at"])[places[-1]])
    return places


def holes(n: int, where: np.ndarray, punches: list[list[int]]) -> np.ndarray:
    """The cells of the open sheet (as indices) that are hit by punches through the folded sheet."""
    return np.flatnonzero(np.isin(where[::4] // 4, [r * n + c for r, c in punches]))


def solve(n: int, folds: list[dict], punches: list[list[int]]) -> list[dict]:
    """The states of the punched sheet after 0, 1, ... folds. Raises Rejected if a state has a single quarter of a
    cell."""
    places = positions_by_fold(n, folds)
    punched = 4 * holes(n, places[-1], punches)
    return [{"rows": rows_of(n, where, where[punched] // 4)} for where in places]


def rows_of(n: int, where: np.ndarray, punched: np.ndarray) -> list[str]:
    paper = np.zeros(4 * n * n, int)
    paper[where] = 1
    bits = paper.reshape(-1, 4) @ (1, 2, 4, 8)
    if not set(bits.tolist()) <= set(LETTERS):
        raise Rejected("a quarter of a cell")
    letters = [LETTERS[b] for b in bits.tolist()]
    for cell in punched.tolist():
        letters[cell] = "o"
    return ["".join(letters[r * n : r * n + n]) for r in range(n)]


def cells_of(rows: list[str], letter: str = "o") -> list[Cell]:
    """Cells counted from (1, 1), row by row."""
    return [(r + 1, c + 1) for r, row in enumerate(rows) for c, value in enumerate(row) if value == letter]
