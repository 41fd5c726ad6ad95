"""Grids of numbers and signs, verified by the rules of the puzzle."""

from __future__ import annotations

import re
from itertools import groupby
from math import prod

from .answers import (
    as_numbers,
    grid_reader,
    is_latin,
    neighbors,
    read_bars,
    rule,
    transposed,
)

read_digit_grid = grid_reader(r"\d")
read_number_grid = grid_reader(r"\d{1,4}")
OPERATIONS = {
    "+": sum,
    "*": prod,
    "-": lambda values: max(values) - min(values) if len(values) == 2 else None,
    "/": lambda values: max(values) / min(values) if len(values) == 2 else None,
}
OPERATORS = {"×": "*", "x": "*", "÷": "/", "−": "-"}


def keeps(rows: list[list], given: list[list]) -> bool:
    """Whether a grid has the size of a given one and its filled cells (not 0, None or empty)."""
    return [len(row) for row in rows] == [len(row) for row in given] and all(
        old in (0, None, "", ".", "0") or str(new) == str(old)
        for row, old_row in zip(rows, given, strict=True)
        for new, old in zip(row, old_row, strict=True)
    )


@rule(read_digit_grid)
def sudoku(grid: list[list[str]], meta: dict) -> bool:
    """Each row, column and block has the numbers from 1 to 9 (or to the side) and the given ones stay."""
    rows, state = as_numbers(grid), meta["state"]
    given = (
        [re.findall(r"[\d.]", line) for line in state.strip().split("\n")]
        if isinstance(state, str)
        else (state["grid"] if isinstance(state, dict) else state)
    )
    side = round(len(rows) ** 0.5)
    blocks = [
        [rows[r + i][c + j] for i in range(side) for j in range(side)]
        for r in range(0, len(rows), side)
        for c in range(0, len(rows), side)
    ]
    return is_latin(rows) and all(len(set(block)) == len(rows) for block in blocks) and keeps(rows, given)


@rule(read_number_grid)
def calcudoku(grid: list[list[str]], meta: dict) -> bool:
    """A Latin square whose regions reach their targets. Cells of regions are counted from 1."""
    rows = as_numbers(grid)
    if len(rows) != meta["state"].get("size", len(rows)) or not is_latin(rows):
        return False
    for region in meta["state"]["regions"]:
        values = [rows[r - 1][c - 1] for r, c in region["cells"]]
        sign = OPERATORS.get(region["operator"], region["operator"])
        if (values[0] if len(values) == 1 else OPERATIONS[sign](values)) != region["target"]:
            return False
    return True


@rule(read_number_grid)
def futoshiki(grid: list[list[str]], meta: dict) -> bool:
    """A Latin square that keeps the given numbers and the signs < and > between cells counted from 0."""
    rows, state = as_numbers(grid), meta["state"]
    if not is_latin(rows) or not keeps(rows, state["grid"]):
        return False
    for sign in state["inequalities"]:
        first, second = (rows[r][c] for r, c in (sign["cell1"], sign["cell2"]))
        if not (first < second if sign["symbol"] == "<" else first > second):
            return False
    return True


@rule(read_number_grid)
def skyscrapers(grid: list[list[str]], meta: dict) -> bool:
    """A Latin square in which as many heights are visible from each side as it says; 0 says nothing."""
    rows, state = as_numbers(grid), meta["state"]
    if len(rows) != state.get("n", len(rows)) or not is_latin(rows):
        return False
    lines = {
        "left": rows,
        "right": [row[::-1] for row in rows],
        "top": transposed(rows),
        "bottom": [column[::-1] for column in transposed(rows)],
    }
    return all(
        number in (0, None) or sum(height == max(line[: i + 1]) for i, height in enumerate(line)) == number
        for side, views in lines.items()
        for number, line in zip(state[side], views, strict=True)
    )


@rule(grid_reader(r"[01]"))
def binairo(grid: list[list[str]], meta: dict) -> bool:
    """As many 0 as 1 in each row and column, no three equal in a row, no two equal rows or columns."""
    state = meta["state"]["grid"] if isinstance(meta["state"], dict) else meta["state"]
    given = [[str(cell) if str(cell) in ("0", "1") else None for cell in row] for row in state]
    if [len(row) for row in grid] != [len(row) for row in given] or any(
        old not in (None, new)
        for row, old_row in zip(grid, given, strict=True)
        for new, old in zip(row, old_row, strict=True)
    ):
        return False
    for lines in (grid, transposed(grid)):
        texts = ["".join(line) for line in lines]
        if len(set(texts)) < len(texts) or any("000" in line or "111" in line for line in texts):
            return False
        if any(len(line) % 2 == 0 and line.count("0") != line.count("1") for line in texts):
            return False
    return True


@rule(grid_reader(r"[01]"))
def kukurasu(grid: list[list[str]], meta: dict) -> bool:
    """Cells with 1: the sum of their column numbers in each row, and of their row numbers in each column."""
    state = meta["state"]

    def sums(lines: list[list[str]]) -> list[int]:
        return [sum(i for i, cell in enumerate(line, 1) if cell == "1") for line in lines]

    return sums(grid) == list(state["row_sums"]) and sums(transposed(grid)) == list(state["col_sums"])


@rule(grid_reader(r"[Xx.#■□]"))
def nonogram(grid: list[list[str]], meta: dict) -> bool:
    """The blocks of X in each row and column. ``meta["state"]`` is [clues of the rows, clues of the columns]."""
    state = meta["state"]
    rows, columns = (state["rows"], state["columns"]) if isinstance(state, dict) else state

    def blocks(line: list[str]) -> list[int]:
        return [len(list(cells)) for is_filled, cells in groupby(line, lambda cell: cell in "Xx#■") if is_filled]

    def matches(lines: list[list[str]], clues: list[list[int]]) -> bool:
        return [blocks(line) for line in lines] == [[n for n in clue if n] for clue in clues]

    return matches(grid, rows) and matches(transposed(grid), columns)


def read_numbrix(text: str) -> list[list[int]] | None:
    rows = read_bars(text) or read_number_grid(text)
    return rows and [[int(cell) if cell.isdecimal() else 0 for cell in row] for row in rows]


@rule(read_numbrix)
def numbrix(rows: list[list[int]], meta: dict) -> bool:
    """Numbers from 1 on, each next to the one before it. Cells may stay empty; given numbers stay."""
    given = read_numbrix(meta["state"]) if isinstance(meta["state"], str) else meta["state"]
    place = {n: (r, c) for r, row in enumerate(rows) for c, n in enumerate(row) if n}
    if not keeps(rows, given) or len(place) != sum(bool(n) for row in rows for n in row):
        return False
    return sorted(place) == [*range(1, len(place) + 1)] and all(
        place[n + 1] in neighbors(place[n]) for n in range(1, len(place))
    )


def read_euler(text: str) -> list[list[str]] | None:
    rows = read_bars(text) or grid_reader(r"[A-Za-z]\d{1,2}")(text)
    return rows and [[cell.upper() for cell in row] for row in rows]


@rule(read_euler)
def euler_square(rows: list[list[str]], meta: dict) -> bool:
    """Pairs such as A1: each letter and each number once in each row and column, each pair once."""
    state = meta["state"]
    given = read_bars(state) if isinstance(state, str) else state
    letters = [[ord(cell[0]) - ord("A") + 1 for cell in row] for row in rows]
    numbers = [[int(cell[1:]) for cell in row] for row in rows]
    pairs = {cell for row in rows for cell in row}
    return is_latin(letters) and is_latin(numbers) and len(pairs) == len(rows) ** 2 and keeps(rows, given)


def read_values(text: str) -> dict[tuple[int, int], int] | None:
    found = re.findall(r"[(\[]\s*(\d{1,3})\s*,\s*(\d{1,3})\s*[)\]]['\"]?\s*(?::|=|->)\s*(\d)\b", text)
    values = {(int(r), int(c)): int(value) for r, c, value in found}
    return values if values and len(values) == len(found) else None


@rule(read_values)
def kakuro(values: dict[tuple[int, int], int], meta: dict) -> bool:
    """Each run of white cells has different digits with the sum of its black cell: ``right`` or ``down``."""
    cells = {(r, c): cell for r, row in enumerate(meta["state"]) for c, cell in enumerate(row)}
    white = {place for place, cell in cells.items() if cell["type"] == "white"}
    if set(values) != white or not all(1 <= value <= 9 for value in values.values()):
        return False
    for (r, c), cell in cells.items():
        for name, dr, dc in (("right", 0, 1), ("down", 1, 0)):
            clue = cell.get(name) if cell["type"] == "black" else None
            clue = clue[0] if isinstance(clue, list) else clue
            run, place = [], (r + dr, c + dc)
            while place in white:
                run.append(values[place])
                place = place[0] + dr, place[1] + dc
            if clue and run and (sum(run) != clue or len(set(run)) < len(run)):
                return False
    return True
