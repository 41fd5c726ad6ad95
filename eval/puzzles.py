"""Rules that verify an answer of a puzzle that has many. As those of tasks/checkers.py, ``rule(text, meta) -> Check``
reads the boxed answer and never raises on any text."""

from __future__ import annotations

import ast
import operator
import re
from fractions import Fraction

from latent_reason.tasks.checkers import Check, boxed

SIGNS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
WAYS = {"north": (1, 0), "south": (-1, 0), "east": (0, 1), "west": (0, -1)}
MOST = 500  # moves that are followed


def _judged(ok: bool, parsed) -> Check:
    return Check(ok, float(ok), "right" if ok else "wrong", parsed)


NOTHING = Check(False, 0.0, "no_answer")


def displacement(text: str, meta: dict) -> Check:
    """VSP's street maps: ``North: 2, East: 1`` in any order, with the sums ``meta["north"]`` and ``meta["east"]``."""
    said = re.findall(r"\b(north|south|east|west)\s*:\s*(\d{1,6})\b", (boxed(text) or "").lower())
    if not said:
        return NOTHING
    north, east = (sum(WAYS[way][axis] * int(count) for way, count in said) for axis in (0, 1))
    return _judged((north, east) == (meta["north"], meta["east"]), f"north {north}, east {east}")


def points24(text: str, meta: dict) -> Check:
    """An expression of + - * / and brackets that makes 24 of ``meta["numbers"]``, each used once."""
    said = (boxed(text) or "").partition("=")[0].strip()
    said = said.replace("\\times", "*").replace("×", "*").replace("\\div", "/").replace("÷", "/").replace("−", "-")
    if not said or len(said) > 200 or re.search(r"[^\d\s+\-*/().]", said):
        return NOTHING
    try:
        used: list[Fraction] = []
        made = _worth(ast.parse(said, mode="eval").body, used)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return NOTHING
    return _judged(made == 24 and sorted(used) == sorted(map(Fraction, meta["numbers"])), said)


def _worth(node: ast.expr, used: list[Fraction]) -> Fraction:
    if isinstance(node, ast.BinOp) and type(node.op) in SIGNS:
        return SIGNS[type(node.op)](_worth(node.left, used), _worth(node.right, used))
    if isinstance(node, ast.Constant) and type(node.value) is int:
        used.append(Fraction(node.value))
        return used[-1]
    raise ValueError("no arithmetic")


def hanoi(text: str, meta: dict) -> Check:
    """Moves ``(disk, peg)``, pegs counted from 1, that bring all of ``meta["pegs"]`` (bottom first) to the last."""
    said = re.findall(r"\(\s*(\d{1,4})\s*,\s*(\d{1,4})\s*\)", boxed(text) or "")[:MOST]
    if not said:
        return NOTHING
    pegs = [list(peg) for peg in meta["pegs"]]
    for disk, to in ((int(disk), int(peg) - 1) for disk, peg in said):
        source = next((peg for peg in pegs if peg and peg[-1] == disk), None)
        if source is None or not 0 <= to < len(pegs) or (pegs[to] and pegs[to][-1] < disk):
            return _judged(False, [f"({d},{p})" for d, p in said])
        source.pop()
        pegs[to].append(disk)
    return _judged(not any(pegs[:-1]), [f"({d},{p})" for d, p in said])


def sliding(text: str, meta: dict) -> Check:
    """Tiles, by their numbers, that slide into the gap (0) one after another until ``meta["board"]`` is in order with
    the gap at the end."""
    said = [int(n) for n in re.findall(r"\d{1,4}", boxed(text) or "")][:MOST]
    if not said:
        return NOTHING
    board, width = [n for row in meta["board"] for n in row], len(meta["board"][0])
    for tile in said:
        gap, at = board.index(0), board.index(tile) if tile in board else -1
        beside = abs(gap - at) == width or (abs(gap - at) == 1 and gap // width == at // width)
        if at < 0 or not tile or not beside:
            return _judged(False, said)
        board[gap], board[at] = tile, 0
    return _judged(board == [*range(1, len(board)), 0], said)
