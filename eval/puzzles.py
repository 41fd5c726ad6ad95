"""Rules that verify answers of puzzles with several solutions. As in tasks/checkers.py, ``rule(text, meta) -> Check``
reads the boxed answer and never raises an error, for any text."""

from __future__ import annotations

import ast
import operator
import re
from fractions import Fraction

from latent_reason.tasks.checkers import Check, boxed

SIGNS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
DIRECTIONS = {"north": (1, 0), "south": (-1, 0), "east": (0, 1), "west": (0, -1)}
MAX_MOVES = 500  # later moves are ignored


def _graded(ok: bool, parsed) -> Check:
    return Check(ok, float(ok), "right" if ok else "wrong", parsed)


NO_ANSWER = Check(False, 0.0, "no_answer")


def displacement(text: str, meta: dict) -> Check:
    """Street maps of VSP: ``North: 2, East: 1`` in any order; the sums must be ``meta["north"]`` and ``meta["east"]``."""
    steps = re.findall(r"\b(north|south|east|west)\s*:\s*(\d{1,6})\b", (boxed(text) or "").lower())
    if not steps:
        return NO_ANSWER
    north, east = (sum(DIRECTIONS[direction][axis] * int(count) for direction, count in steps) for axis in (0, 1))
    return _graded((north, east) == (meta["north"], meta["east"]), f"north {north}, east {east}")


def points24(text: str, meta: dict) -> Check:
    """An expression of + - * / and parentheses that equals 24 and uses each of ``meta["numbers"]`` once."""
    expression = (boxed(text) or "").partition("=")[0].strip()
    expression = (
        expression.replace("\\times", "*").replace("×", "*").replace("\\div", "/").replace("÷", "/").replace("−", "-")
    )
    if not expression or len(expression) > 200 or re.search(r"[^\d\s+\-*/().]", expression):
        return NO_ANSWER
    try:
        numbers: list[Fraction] = []
        result = _evaluate(ast.parse(expression, mode="eval").body, numbers)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return NO_ANSWER
    return _graded(result == 24 and sorted(numbers) == sorted(map(Fraction, meta["numbers"])), expression)


def _evaluate(node: ast.expr, numbers: list[Fraction]) -> Fraction:
    if isinstance(node, ast.BinOp) and type(node.op) in SIGNS:
        return SIGNS[type(node.op)](_evaluate(node.left, numbers), _evaluate(node.right, numbers))
    if isinstance(node, ast.Constant) and type(node.value) is int:
        numbers.append(Fraction(node.value))
        return numbers[-1]
    raise ValueError("not an arithmetic expression")


def hanoi(text: str, meta: dict) -> Check:
    """Moves ``(disk, peg)``, pegs counted from 1, that move all disks of ``meta["pegs"]`` (bottom first) to the last peg."""
    moves = re.findall(r"\(\s*(\d{1,4})\s*,\s*(\d{1,4})\s*\)", boxed(text) or "")[:MAX_MOVES]
    if not moves:
        return NO_ANSWER
    pegs = [list(peg) for peg in meta["pegs"]]
    for disk, target in ((int(disk), int(peg) - 1) for disk, peg in moves):
        source = next((peg for peg in pegs if peg and peg[-1] == disk), None)
        if source is None or not 0 <= target < len(pegs) or (pegs[target] and pegs[target][-1] < disk):
            return _graded(False, [f"({d},{p})" for d, p in moves])
        source.pop()
        pegs[target].append(disk)
    return _graded(not any(pegs[:-1]), [f"({d},{p})" for d, p in moves])


def sliding(text: str, meta: dict) -> Check:
    """Numbers of the tiles that slide into the gap (0) in turn. At the end ``meta["board"]`` must be in order, with the
    gap last."""
    tiles = [int(n) for n in re.findall(r"\d{1,4}", boxed(text) or "")][:MAX_MOVES]
    if not tiles:
        return NO_ANSWER
    board, width = [n for row in meta["board"] for n in row], len(meta["board"][0])
    for tile in tiles:
        gap, at = board.index(0), board.index(tile) if tile in board else -1
        is_adjacent = abs(gap - at) == width or (abs(gap - at) == 1 and gap // width == at // width)
        if at < 0 or not tile or not is_adjacent:
            return _graded(False, tiles)
        board[gap], board[at] = tile, 0
    return _graded(board == [*range(1, len(board)), 0], tiles)
