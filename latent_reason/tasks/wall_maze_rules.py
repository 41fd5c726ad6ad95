"""The mazes of ``wall_maze``: their passages, and what actions do in them."""

from __future__ import annotations

from typing import Any

from .stream import Stream

Cell = tuple[int, int]

SIZES = {1: (3, 3), 2: (3, 4), 3: (3, 5), 4: (4, 5), 5: (5, 5), 6: (6, 6), 7: (7, 7), 8: (8, 8)}
WAYS = {"N": (-1, 0), "E": (0, 1), "S": (1, 0), "W": (0, -1)}
COMPASS = {"N": "north", "E": "east", "S": "south", "W": "west"}
DARTS = {"N": "U", "E": "R", "S": "D", "W": "L"}
TURNS = {"left": -1, "right": 1}
LETTERS = {"U": "N", "R": "E", "D": "S", "L": "W"}
ACTIONS = {"turn": ("forward", *TURNS), "junction": ("forward", *TURNS), "absolute": tuple(LETTERS)}
MOST_ACTIONS = 1000


def is_open(maze: dict, cell: Cell, way: str) -> bool:
    row, col = cell
    if way in "EW":
        col -= way == "W"
        return 0 <= col < len(maze["right"][0]) and maze["right"][row][col] == "1"
    row -= way == "N"
    return 0 <= row < len(maze["down"]) and maze["down"][row][col] == "1"


def beside(cell: Cell, way: str) -> Cell:
    return cell[0] + WAYS[way][0], cell[1] + WAYS[way][1]


def advance(maze: dict, cell: Cell, heading: str, action: str, kind: str) -> tuple[list[Cell], str] | None:
    """The cells that an action enters and the direction after it. None if a wall blocks it."""
    if action in TURNS:
        return [], "NESW"[("NESW".index(heading) + TURNS[action]) % 4]
    heading, cells = LETTERS.get(action, heading), []
    sides = "EW" if heading in "NS" else "NS"
    while is_open(maze, cell, heading):
        cell = beside(cell, heading)
        cells.append(cell)
        if kind != "junction" or list(cell) == maze["goal"] or any(is_open(maze, cell, side) for side in sides):
            break
    return (cells, heading) if cells else None


def walk(maze: dict, actions: list[str], kind: str, state: dict | None = None) -> tuple[dict, int]:
    """(state after the actions, number of blocked actions). Blocked actions have no effect."""
    state = state or start(maze)
    cells, heading, hits = [tuple(cell) for cell in state["cells"]], state["heading"], 0
    for action in actions:
        done = advance(maze, cells[-1], heading, action, kind)
        if done is None:
            hits += 1
            continue
        heading = done[1]
        for cell in done[0]:
            cells = [*cells[: cells.index(cell)], cell] if cell in cells else [*cells, cell]
    return {"cells": [list(cell) for cell in cells], "heading": heading}, hits


def start(maze: dict) -> dict:
    return {"cells": [maze["start"]], "heading": maze["heading"]}


def solve(maze: dict, kind: str) -> tuple[list[str], int]:
    """(a shortest plan, number of shortest plans). Ties are broken by the order of ``ACTIONS``."""
    goal, first = tuple(maze["goal"]), (tuple(maze["start"]), maze["heading"])
    plans: dict[Any, list[str]] = {first: []}
    layer: dict[Any, int] = {first: 1}
    while layer:
        if found := [node for node in layer if node[0] == goal]:
            return plans[found[0]], sum(layer[node] for node in found)
        after: dict[Any, int] = {}
        for node, ways in layer.items():
            for action in ACTIONS[kind]:
                done = advance(maze, node[0], node[1], action, kind)
                if done is None:
                    continue
                new = (done[0][-1] if done[0] else node[0], done[1])
                if new not in plans:
                    plans[new] = [*plans[node], action]
                    after[new] = ways
                elif new in after:
                    after[new] += ways
        layer = after
    raise ValueError("The goal is unreachable.")


def distances(maze: dict, source: Cell) -> dict[Cell, int]:
    """The distance in passages from ``source`` to every cell."""
    far, queue = {source: 0}, [source]
    for cell in queue:
        for way in WAYS:
            if is_open(maze, cell, way) and (there := beside(cell, way)) not in far:
                far[there] = far[cell] + 1
                queue.append(there)
    return far


def passages(height: int, width: int, loops: int, stream: Stream) -> dict:
    """A random depth-first spanning tree plus ``loops`` further passages."""
    right, down = [["0"] * (width - 1) for _ in range(height)], [["0"] * width for _ in range(height - 1)]

    def carve(cell: Cell, there: Cell) -> None:
        (row, col), (other, _) = min(cell, there), max(cell, there)
        (right if row == other else down)[row][col] = "1"

    stack = [(stream.below(height), stream.below(width))]
    seen = set(stack)
    while stack:
        near = [
            there
            for way in WAYS
            if (there := beside(stack[-1], way)) not in seen and 0 <= there[0] < height and 0 <= there[1] < width
        ]
        if not near:
            stack.pop()
            continue
        there = stream.choice(near)
        carve(stack[-1], there)
        seen.add(there)
        stack.append(there)
    if loops:
        closed = [
            (rows, r, k) for rows in (right, down) for r, row in enumerate(rows) for k, v in enumerate(row) if v == "0"
        ]
        for rows, r, k in stream.shuffle(closed)[:loops]:
            rows[r][k] = "1"
    return {"right": ["".join(row) for row in right], "down": ["".join(row) for row in down]}


def size(maze: dict) -> Cell:
    return len(maze["right"]), len(maze["down"][0])


def edges(maze: dict) -> list[tuple[Cell, str]]:
    """All borders between two cells, as (cell, direction E or S)."""
    height, width = size(maze)
    return [((r, k), "E") for r in range(height) for k in range(width - 1)] + [
        ((r, k), "S") for r in range(height - 1) for k in range(width)
    ]
