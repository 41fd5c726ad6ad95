"""Sets of cells, listed by their coordinates."""

from __future__ import annotations

from collections import Counter

from .answers import Cell, around, components, neighbors, read_pairs, rule


def counts(cells: set[Cell], axis: int, size: int) -> list[int]:
    """How many cells are in each row (axis 0) or column (axis 1)."""
    by_line = Counter(cell[axis] for cell in cells)
    return [by_line[i] for i in range(size)]


def cells_of(rows: list, is_wanted) -> set[Cell]:
    return {(r, c) for r, row in enumerate(rows) for c, cell in enumerate(row) if is_wanted(cell)}


@rule(read_pairs)
def aquarium(pairs: list[Cell], meta: dict) -> bool:
    """Cells with water, as (column, row) from 0. A region is full up to one level; rows and columns have their counts."""
    state, water = meta["state"], {(y, x) for x, y in pairs}
    rows, columns = state["grid_size"]
    if not water <= cells_of(state["regions"], lambda cell: True):
        return False
    if counts(water, 0, rows) != state["row_clues"] or counts(water, 1, columns) != state["col_clues"]:
        return False
    for region in {cell for row in state["regions"] for cell in row}:
        cells = cells_of(state["regions"], lambda cell, region=region: cell == region)
        level = min((r for r, c in cells & water), default=rows)
        if {cell for cell in cells if cell[0] >= level} != cells & water:
            return False
    return True


@rule(read_pairs)
def campsite(pairs: list[Cell], meta: dict) -> bool:
    """Tents, as [row, column] from 1: each beside a tree, none next to another, with the counts of rows and columns."""
    state, tents = meta["state"], {(r - 1, c - 1) for r, c in pairs}
    grid = state["input_grid"]
    trees = cells_of(grid, lambda cell: cell == "T")
    is_free = not tents & trees and tents <= cells_of(grid, lambda cell: True)
    if not is_free or any(not trees & set(neighbors(tent)) or tents & set(around(tent)) for tent in tents):
        return False
    return counts(tents, 0, len(grid)) == state["row_constraints"] and (
        counts(tents, 1, len(grid[0])) == state["col_constraints"]
    )


@rule(read_pairs)
def hitori(pairs: list[Cell], meta: dict) -> bool:
    """Shaded cells, as (row, column) from 0: none beside another; the others are connected and differ in each line."""
    grid = meta["state"]["grid"] if isinstance(meta["state"], dict) else meta["state"]
    shaded, every = set(pairs), cells_of(grid, lambda cell: True)
    white = every - shaded
    if not shaded <= every or any(shaded & set(neighbors(cell)) for cell in shaded):
        return False
    seen = [(axis, cell[axis], grid[cell[0]][cell[1]]) for cell in white for axis in (0, 1)]
    return len(seen) == len(set(seen)) and len(components(white, neighbors)) == 1


@rule(read_pairs)
def tapa(pairs: list[Cell], meta: dict) -> bool:
    """Black cells, as (row, column) from 0: connected, no block of 2 x 2, with groups of the given sizes around clues.

    As in MM-HELIX, cells that touch at a corner are one group.
    """
    drawing = [line.rstrip() for line in meta["state"].strip("\n").split("\n")]
    black = set(pairs)
    clues = {cell: int(drawing[cell[0]][cell[1]]) for cell in cells_of(drawing, str.isdigit)}
    if not black <= cells_of(drawing, lambda cell: True) - set(clues) or len(components(black, neighbors)) > 1:
        return False
    if any({(r + 1, c), (r, c + 1), (r + 1, c + 1)} <= black for r, c in black):
        return False
    return all(
        [len(part) for part in components(black & set(around(cell)), around)] == ([size] if size else [])
        for cell, size in clues.items()
    )


@rule(read_pairs)
def mines(pairs: list[Cell], meta: dict) -> bool:
    """The cells with mines; they are unique."""
    return set(pairs) == set(read_pairs(str(meta["gold"])))


@rule(read_pairs)
def snake_path(pairs: list[Cell], meta: dict) -> bool:
    """The cells between the two ends; they are unique."""
    return set(pairs) == set(read_pairs(str(meta["gold"])))
