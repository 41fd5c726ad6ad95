"""FrozenLake boards as letters: S start, G goal, H hole, F ice; rows from top to bottom, cells (row, column) from 0.

A state is ``{"map": rows, "elf": [row, column], "facing": move}``. ``same`` ignores ``facing``, which only affects the
image. The distribution of boards is that of the VSP benchmark (arXiv 2407.01863): start and goal anywhere, every other
cell a hole with probability 0.2, unsolvable boards rejected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from .stream import Stream, canon

MOVES = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}
ORDER = "DRUL"  # preference of the canonical path among equally short moves
HOLE_P = 0.2
SPACE = "grid_board/1"  # shared by all tasks on these boards, so a board is in one split only

Rows = Sequence[str]
Cell = tuple[int, int]


def find(rows: Rows, letter: str) -> Cell:
    return next((r, row.index(letter)) for r, row in enumerate(rows) if letter in row)


def cell_at(rows: Rows, cell: Cell) -> str:
    return rows[cell[0]][cell[1]]


def step(rows: Rows, cell: Cell, move: str) -> Cell:
    """The cell after one move. A move off the board leaves the elf in its cell."""
    r, c = cell[0] + MOVES[move][0], cell[1] + MOVES[move][1]
    return (r, c) if 0 <= r < len(rows) and 0 <= c < len(rows) else cell


def walk(rows: Rows, moves: Iterable[str], start: Cell | None = None) -> list[Cell]:
    """The cells visited, start included. A hole ends the walk, the goal does not."""
    cells = [find(rows, "S") if start is None else start]
    for move in moves:
        if cell_at(rows, cells[-1]) == "H":
            break
        cells.append(step(rows, cells[-1], move))
    return cells


def distances(rows: Rows) -> dict[Cell, int]:
    """The distance to the goal of every cell that can reach it, in increasing order."""
    goal = find(rows, "G")
    distance = {goal: 0}
    for cell in (queue := [goal]):
        for move in MOVES:
            target = step(rows, cell, move)
            if target not in distance and cell_at(rows, target) != "H":
                distance[target] = distance[cell] + 1
                queue.append(target)
    return distance


def path_length(rows: Rows) -> int | None:
    """The length of a shortest plan. None if the goal cannot be reached."""
    return distances(rows).get(find(rows, "S"))


def downhill(rows: Rows, far: dict[Cell, int], cell: Cell) -> str:
    """The moves that reduce the distance to the goal, in canonical order."""
    return "".join(m for m in ORDER if far.get(step(rows, cell, m), far[cell]) < far[cell])


def counts(rows: Rows) -> tuple[dict[Cell, int], dict[Cell, int]]:
    """Of every cell that can reach the goal: its distance, and the number of shortest plans from it."""
    distance, ways = distances(rows), {find(rows, "G"): 1}
    for cell in list(distance)[1:]:
        ways[cell] = sum(ways[step(rows, cell, m)] for m in downhill(rows, distance, cell))
    return distance, ways


def solve(rows: Rows) -> tuple[int, int] | None:
    """(length of a shortest plan, number of shortest plans). None if the goal cannot be reached."""
    (distance, ways), start = counts(rows), find(rows, "S")
    return (distance[start], ways[start]) if start in distance else None


def nth_shortest(rows: Rows, number: int) -> str:
    """The shortest plan of this number, from 0, when all shortest plans are sorted by their moves in ``ORDER``."""
    (distance, ways), cell, plan = counts(rows), find(rows, "S"), ""
    while distance[cell]:
        for move in downhill(rows, distance, cell):
            if number < ways[step(rows, cell, move)]:
                break
            number -= ways[step(rows, cell, move)]
        plan, cell = plan + move, step(rows, cell, move)
    return plan


def shortest(rows: Rows, pick: Callable[[str], str] | None = None) -> str:
    """A shortest plan, by default the canonical one: keep the direction while it reduces the distance, else take the
    first direction in ``ORDER`` that does."""
    distance, cell, plan = distances(rows), find(rows, "S"), ""
    while distance[cell]:
        useful = downhill(rows, distance, cell)
        plan += pick(useful) if pick else plan[-1] if plan and plan[-1] in useful else useful[0]
        cell = step(rows, cell, plan[-1])
    return plan


def draw(stream: Stream, n: int, start: Cell | None = None, goal: Cell | None = None) -> tuple[str, ...]:
    """Sample a board of size n. ``start`` and ``goal`` are sampled if None."""
    a = stream.below(n * n) if start is None else start[0] * n + start[1]
    if goal is None:
        b = stream.below(n * n - 1)
        b += b >= a
    else:
        b = goal[0] * n + goal[1]
    letters = ["S" if i == a else "G" if i == b else "H" if stream.unit() < HOLE_P else "F" for i in range(n * n)]
    return tuple("".join(letters[i : i + n]) for i in range(0, n * n, n))


def name(rows: Rows) -> str:
    """The canonical string of a board."""
    return canon(SPACE, {"map": list(rows)})


def state_of(rows: Rows, moves: Iterable[str] = ()) -> dict:
    """The state after the moves. The elf faces in the direction of the last attempted move, initially down."""
    tried = list(moves)
    cells = walk(rows, tried)
    tried = tried[: len(cells) - 1]
    return {"map": list(rows), "elf": list(cells[-1]), "facing": tried[-1] if tried else "D"}


def same(a: dict | None, b: dict | None) -> bool:
    """Whether two states hold the same board with the elf on the same cell."""
    return a is not None and b is not None and (a["map"], a["elf"]) == (b["map"], b["elf"])


def letters(state: dict) -> list[str]:
    """The rows with E at the elf's cell, or X if that cell is a hole."""
    rows, (r, c) = list(state["map"]), state["elf"]
    rows[r] = rows[r][:c] + ("X" if rows[r][c] == "H" else "E") + rows[r][c + 1 :]
    return rows


def map_line(state: dict) -> str:
    """The state in one line: ``E F H / F F F / F F G``."""
    return " / ".join(" ".join(row) for row in letters(state))


def to_words(rows: Rows) -> str:
    """The board in the wording of VSP's ``pure_text`` files."""
    n = len(rows)
    holes = [f"Row {r + 1}, Column {c + 1}; " for r in range(n) for c in range(n) if rows[r][c] == "H"]
    (sr, sc), (gr, gc) = find(rows, "S"), find(rows, "G")
    pits = f"The hole(s) are at: {''.join(holes).rstrip()}" if holes else "There is no holes in this map;"
    return (
        f"This is a {n}x{n} map.\nThe player is at: row {sr + 1}, column {sc + 1};\n{pits}\n"
        f"The goal is at: Row {gr + 1}, Column {gc + 1}."
    )


def from_words(text: str) -> tuple[str, ...]:
    """The board that a ``pure_text`` file describes."""
    if (size := re.search(r"(\d+)x\d+ map", text)) is None:
        raise ValueError("the text does not name the size of its map, as in 'a 4x4 map'.")
    n = int(size[1])
    cells = [(int(r) - 1, int(c) - 1) for r, c in re.findall(r"[Rr]ow (\d+), [Cc]olumn (\d+)", text)]
    grid = [["F"] * n for _ in range(n)]
    for (r, c), letter in zip(cells, "S" + "H" * (len(cells) - 2) + "G", strict=True):
        grid[r][c] = letter
    return tuple(map("".join, grid))
