"""Expressions and sums of letters."""

from __future__ import annotations

import ast
import operator
import re
from fractions import Fraction

from .answers import rule

SIGNS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
NAMES = {"\\times": "*", "\\cdot": "*", "×": "*", "\\div": "/", "÷": "/", "−": "-", "\\left": "", "\\right": ""}


def read_expression(text: str) -> ast.expr | None:
    """An expression of numbers, + - * / and parentheses, up to ``=``. None if the text is something else."""
    text = re.sub(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"((\1)/(\2))", text.partition("=")[0])
    for name, sign in NAMES.items():
        text = text.replace(name, sign)
    if len(text) > 200 or re.search(r"[^\d\s+\-*/()]", text):
        return None
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@rule(read_expression)
def points24(expression: ast.expr, meta: dict) -> bool:
    """An expression that equals 24 and uses each of ``meta["numbers"]`` once."""
    numbers: list[Fraction] = []
    return _evaluate(expression, numbers) == 24 and sorted(numbers) == sorted(map(Fraction, meta["numbers"]))


def _evaluate(node: ast.expr, numbers: list[Fraction]) -> Fraction:
    if isinstance(node, ast.BinOp) and type(node.op) in SIGNS:
        return SIGNS[type(node.op)](_evaluate(node.left, numbers), _evaluate(node.right, numbers))
    if isinstance(node, ast.Constant) and type(node.value) is int:
        numbers.append(Fraction(node.value))
        return numbers[-1]
    raise ValueError("not an arithmetic expression")


def read_digits(text: str) -> dict[str, int] | None:
    """Letters and their digits, as ``{"A": 1, "B": 2}`` or ``A=1, B=2``. None if a letter has two."""
    found = re.findall(r"['\"]?\b([A-Za-z])\b['\"]?\s*[:=]\s*['\"]?(\d)\b", text)
    digits = {letter.upper(): int(digit) for letter, digit in found}
    return digits if found and len(digits) == len({letter.upper() for letter, _ in found}) == len(found) else None


@rule(read_digits)
def cryptarithm(digits: dict[str, int], meta: dict) -> bool:
    """Letters are different digits, no word starts with 0, and ``meta["state"]["equation"]`` holds."""
    equation = meta["state"]["equation"].upper()
    words = re.findall(r"[A-Z]+", equation)
    if len(set(digits.values())) < len(digits) or not set("".join(words)) == set(digits):
        return False
    if any(digits[word[0]] == 0 and len(word) > 1 for word in words):
        return False
    left, right = re.sub(r"[A-Z]", lambda letter: str(digits[letter[0]]), equation).split("=")
    return _evaluate(_parse(left), []) == _evaluate(_parse(right), [])


def _parse(side: str) -> ast.expr:
    """One side of an equation; numbers may start with 0, which Python does not allow."""
    expression = read_expression(re.sub(r"\b0+(?=\d)", "", side))
    if expression is None:
        raise ValueError("not an arithmetic expression")
    return expression
