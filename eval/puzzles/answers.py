"""The formats in which answers of puzzles are written: moves, coordinates, lists of nodes, grids."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from math import isqrt
from typing import Any

from latent_reason.tasks.checkers import Check, boxed

Cell = tuple[int, int]
MAX_LENGTH = 20_000  # characters of an answer; longer ones are not read
MAX_MOVES = 500  # later moves are ignored
NO_ANSWER = Check(False, 0.0, "no_answer")
STEPS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}  # (row, column)
NEIGHBORS = tuple(STEPS.values())
ARROWS = str.maketrans({"↑": " up ", "↓": " down ", "←": " left ", "→": " right "})
PAIR = re.compile(r"[(\[{]\s*(\d{1,4})\s*[,，\s]\s*(\d{1,4})\s*[)\]}]")
#: the rest of LaTeX in a box: commands around a text, environments, line ends, spaces and escaped signs
LATEX = (
    (re.compile(r"\\(?:text|textbf|texttt|mathrm|mathbf|mathtt)\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\(?:begin|end)\s*\{[a-z]+\*?\}(?:\{[lcr|\s]*\})?|\\hline"), "\n"),
    (re.compile(r"\\(?:rightarrow|to)\b"), " -> "),
    (re.compile(r"\\\\|\\newline|\\n(?!eq|abla|eg\b|ot\b|e\b|u\b)"), "\n"),
    (re.compile(r"\\(?:quad|qquad|[ ,;:!])"), " "),
    (re.compile(r"\\([{}_&#%$@])"), r"\1"),
)


def rule(read: Callable[[str], Any]) -> Callable[[Callable[[Any, dict], bool]], Callable[[str, dict], Check]]:
    """Makes a rule ``(text, meta) -> Check`` of a function ``is_solution(answer, meta)``.

    Args:
        read: parses the boxed text; None if it is not an answer. An answer or a state of another shape, which makes
            ``is_solution`` fail, is wrong.
    """

    def decorate(is_solution: Callable[[Any, dict], bool]) -> Callable[[str, dict], Check]:
        @wraps(is_solution)
        def check(text: str, meta: dict) -> Check:
            content = (boxed(text) or "").strip()
            if not content or len(content) > MAX_LENGTH or (answer := read(without_latex(content))) is None:
                return NO_ANSWER
            try:
                is_right = bool(is_solution(answer, meta))
            except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, StopIteration):
                is_right = False
            return Check(is_right, float(is_right), "right" if is_right else "wrong", content)

        return check

    return decorate


def without_latex(text: str) -> str:
    for pattern, plain in LATEX:
        text = pattern.sub(plain, text)
    return text.strip().strip("$`").strip()


# -- lists -------------------------------------------------------------------------------------------------------------
def read_moves(text: str) -> list[str] | None:
    """The words up, down, left and right, their initials or arrows. None if the text has none."""
    text = text.translate(ARROWS).lower()
    if re.fullmatch(r"[udlr]{2,}", text):
        text = " ".join(text)
    initials = {name[0]: name for name in STEPS}
    found = re.findall(r"\b(up|down|left|right|[udlr])\b", text)
    return [initials[name[0]] for name in found][:MAX_MOVES] or None


def read_pairs(text: str) -> list[Cell] | None:
    """Coordinates such as ``(1, 2)`` or ``[1, 2]``; an empty list if the text is ``[]`` or ``{}``."""
    pairs = [(int(a), int(b)) for a, b in PAIR.findall(text)]
    return pairs if pairs or re.fullmatch(r"\[\s*\]|\{\s*\}|\(\s*\)", text) else None


def read_nodes(text: str) -> list[str] | None:
    """The numbers of a list; an empty list if the text is ``No``. None if it is neither."""
    if re.fullmatch(r"['\"]?no['\"]?\.?", text, re.IGNORECASE):
        return []
    if re.search(r"[A-Za-z]", text):
        return None
    return [str(int(node)) for node in re.findall(r"\d{1,6}", text)] or None


# -- grids -------------------------------------------------------------------------------------------------------------
def grid_reader(cell: str) -> Callable[[str], list[list[str]] | None]:
    """Reads a grid whose cells match a pattern, by inner brackets or by lines. A square in one line is cut into rows."""

    def read(text: str) -> list[list[str]] | None:
        inner = re.findall(r"\[([^\[\]]*)\]", text)
        rows = [re.findall(cell, line) for line in (inner or re.split(r"[\n;]", text))]
        rows = [row for row in rows if row]
        if len(rows) == 1 and (side := isqrt(len(rows[0]))) ** 2 == len(rows[0]):
            rows = [rows[0][i : i + side] for i in range(0, side * side, side)]
        return rows if rows and len(set(map(len, rows))) == 1 else None

    return read


def read_bars(text: str) -> list[list[str]] | None:
    """A grid with ``|`` between its cells, which may be empty; bars around all rows are no cells. None if the text has
    none or its rows differ in length."""
    lines = [line.strip() for line in text.split("\n") if "|" in line]
    lines = [line for line in lines if not re.fullmatch(r"[|:\s]*-[|:\-\s]*", line)]  # the line under a header
    if all(len(line) > 1 and line[0] == line[-1] == "|" for line in lines):
        lines = [line[1:-1] for line in lines]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    return rows if rows and len(set(map(len, rows))) == 1 else None


def transposed(rows: list[list]) -> list[list]:
    return [list(column) for column in zip(*rows, strict=True)]


def is_latin(rows: list[list[int]]) -> bool:
    """Whether each row and column of a square has the numbers from 1 to its side."""
    numbers = list(range(1, len(rows) + 1))
    return all(sorted(line) == numbers for line in [*rows, *transposed(rows)])


def as_numbers(rows: list[list[str]]) -> list[list[int]]:
    return [[int(cell) for cell in row] for row in rows]


def neighbors(cell: Cell) -> list[Cell]:
    """The four cells that share a side with a cell."""
    return [(cell[0] + dr, cell[1] + dc) for dr, dc in NEIGHBORS]


def around(cell: Cell) -> list[Cell]:
    """The eight cells around a cell."""
    return [(cell[0] + dr, cell[1] + dc) for dr in (-1, 0, 1) for dc in (-1, 0, 1) if dr or dc]


def components(cells: set, touching: Callable[[Any], Any]) -> list[set]:
    """The connected parts of a set. ``touching(cell)`` gives cells next to a cell, also outside the set."""
    left, parts = set(cells), []
    while left:
        part, queue = set(), [left.pop()]
        while queue:
            cell = queue.pop()
            part.add(cell)
            found = left & set(touching(cell))
            left -= found
            queue += found
        parts.append(part)
    return parts
