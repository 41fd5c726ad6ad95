"""Answer checkers: pure functions ``rule(text, meta) -> Check`` that never raise, whatever the text.

``vsp`` and ``vsp_task4`` follow the scoring of the VSP benchmark (arXiv 2407.01863), ``mirage`` and ``mirage_check``
that of Mirage (arXiv 2506.17218), ``exact`` and ``progress`` the EM and PR of VPRL (arXiv 2505.11409). Each rule
first extracts the answer in the format of the training data (``boxed``) or of the benchmark (``action_plan``). An
answer that cannot be parsed counts as wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .frozenlake_board import cell_at, distances, find, step, walk

LETTER = {"UP": "U", "DOWN": "D", "LEFT": "L", "RIGHT": "R"}
MARKS = ("Action plan: ", "Action Plan: ")
MOST_MOVES = 100


@dataclass(frozen=True)
class Check:
    ok: bool
    partial: float
    reason: str
    parsed: Any = None


def boxed(text: str) -> str | None:
    """The content of the last ``\\boxed{...}`` with balanced braces, in one pass over the text. ``\\fbox{...}`` and
    ``<|begin_of_box|>...<|end_of_box|>`` are boxes, too."""
    text = text.replace("<|begin_of_box|>", "\\boxed{").replace("<|end_of_box|>", "}")
    opened: list[int | None] = []  # start of the content of each open brace; None for a brace without \boxed
    last = None
    for brace in re.finditer(r"\\(?:boxed|fbox)\s*\{|[{}]", text):
        if brace[0] != "}":
            opened.append(brace.end() if brace[0] != "{" else None)
        elif opened and (start := opened.pop()) is not None and (last is None or start > last[0]):
            last = start, brace.start()
    return None if last is None else text[slice(*last)]


def one_of(text: str, meta: dict, marks: str) -> Check:
    """Check that the boxed answer is ``meta["answer"]``. An answer must be one letter of ``marks``, such as ABCDEF."""
    choice = (boxed(text) or "").upper().strip().removesuffix(".").strip()
    if len(choice) != 1 or choice not in marks:
        return Check(False, 0.0, "no_answer")
    ok = choice == meta["answer"]
    return Check(ok, float(ok), "right" if ok else "wrong", choice)


def plan(text: str, style: str = "auto") -> list[str] | None:
    """The pieces of the plan: move letters where they can be parsed, else the raw text. None if there is no plan.

    ``action_plan`` parses as the benchmark does. ``boxed`` also accepts words, arrows and letters without commas.
    """
    content = boxed(text)
    if style == "boxed" or (style == "auto" and content is not None):
        if content is None:
            return None
        pieces: list[str] = []
        for piece in re.split(
            r"(?:,|\s|->|→|\\(?:RIGHT|TO)ARROW)+", re.sub(r"\\TEXT\{([^{}]*)\}", r"\1", content.strip().upper())
        ):
            piece = LETTER.get(piece, piece)
            pieces += piece if set(piece) <= set("UDLR") else [piece]
        return pieces
    for mark in MARKS:
        if mark in text:
            tail = text.split(mark, 1)[1]
            return [re.sub(r"[\"'\n.]", "", piece).strip() for piece in tail.split(",")]
    return None


def vsp(text: str, meta: dict, style: str = "auto") -> Check:
    """VSP planning: correct if the plan reaches the goal before a hole, an invalid piece or its end."""
    rows, pieces = meta["map"], plan(text, style)
    if pieces is None:
        return Check(False, 0.0, "no_plan")
    cell, reason = find(rows, "S"), "short"
    for piece in pieces[:MOST_MOVES]:
        if piece not in ("U", "D", "L", "R"):
            reason = "bad_piece"
            break
        cell = step(rows, cell, piece)
        if cell_at(rows, cell) in "HG":
            reason = "hole" if cell_at(rows, cell) == "H" else "goal"
            break
    return Check(reason == "goal", float(reason == "goal"), reason, pieces)


def mirage(text: str, meta: dict) -> Check:
    """Mirage planning: every U, D, L, R letter of the boxed text is a move. Correct if the last cell is the goal."""
    content = boxed(text)
    if content is None and (pieces := plan(text, "action_plan")) is not None:
        content = ",".join(pieces)
    moves = [c for c in (content or "").upper() if c in "UDLR"]
    cells = walk(meta["map"], moves)
    end = cell_at(meta["map"], cells[-1])
    reason = "no_plan" if content is None else {"G": "goal", "H": "hole"}.get(end, "short")
    if content is not None and "\\" in content:
        reason += ", beware: letters of a command such as \\rightarrow count as moves"
    return Check(end == "G", float(end == "G"), reason, moves)


def _progress(text: str, meta: dict) -> tuple[int, int, list[str] | None]:
    """(number of leading moves that each reduce the distance to the goal, length of a shortest plan, the plan)."""
    rows, pieces = meta["map"], plan(text)
    distance, cell = distances(rows), find(rows, "S")
    total = distance[cell]
    count = 0
    for piece in pieces or []:
        target = step(rows, cell, piece) if piece in ("U", "D", "L", "R") else cell
        if distance.get(target) != distance[cell] - 1:
            break
        cell, count = target, count + 1
    return count, total, pieces


def progress(text: str, meta: dict) -> Check:
    """The fraction of a shortest plan that the leading moves cover. ``ok`` if they cover all of it."""
    count, total, pieces = _progress(text, meta)
    reason = "no_plan" if pieces is None else f"{count} of {total}"
    return Check(count == total, count / total, reason, pieces)


def exact(text: str, meta: dict) -> Check:
    """Correct if the plan is a shortest one. Moves after the arrival are ignored."""
    result = progress(text, meta)
    return Check(result.ok, float(result.ok), result.reason, result.parsed)


def exact_strict(text: str, meta: dict) -> Check:
    """Correct if the plan is a shortest one without further moves."""
    count, total, pieces = _progress(text, meta)
    ok = count == total == len(pieces or [])
    return Check(ok, float(ok), "no_plan" if pieces is None else f"{count} of {total}, {len(pieces)} pieces", pieces)


def fate(meta: dict) -> str:
    """Where the moves of ``meta`` end: A at the goal, B in a hole, C elsewhere. A hole ends the walk, the goal does
    not."""
    return {"G": "A", "H": "B"}.get(cell_at(meta["map"], walk(meta["map"], meta["moves"])[-1]), "C")


def vsp_task4(text: str, meta: dict) -> Check:
    """VSP task 4: Yes if no entered cell is a hole. ``Not safe`` counts as No. Text with both words has no answer."""
    content = boxed(text)
    if content is None:
        mark = next((m for m in ("<Output>", "**Output**", "Output") if m in text), None)
        content = "" if mark is None else text.split(mark, 1)[1]
    start = re.sub(r"[\"'\n.:\-*]", "", content[:10]).lower()
    yes, no = "yes" in start, "no" in start
    if yes == no:
        return Check(False, 0.0, "no_answer")
    ok = yes == (fate(meta) != "B")
    return Check(ok, float(ok), "right" if ok else "wrong", "Yes" if yes else "No")


def mirage_check(text: str, meta: dict) -> Check:
    """Mirage plan check: the boxed letter must be that of :func:`fate`."""
    match = re.match(r"\W*([ABC])\b", (boxed(text) or "").upper())
    if not match:
        return Check(False, 0.0, "no_answer")
    ok = match[1] == fate(meta)
    return Check(ok, float(ok), "right" if ok else "wrong", match[1])
