"""Rules that judge an output text. Pure functions ``rule(text, meta) -> Check`` that never raise on any text.

``vsp`` and ``vsp_task4`` follow the scoring of the VSP benchmark (arXiv 2407.01863), ``mirage`` and ``mirage_check``
that of Mirage (arXiv 2506.17218), ``exact`` and ``progress`` the EM and PR of VPRL (arXiv 2505.11409). Each rule
first takes the answer out of the text in the style the model was taught (``boxed``) or the benchmark's own
(``action_plan``); an answer that cannot be read is wrong, never dropped.
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
    """The content of the last ``\\boxed{...}`` with balanced braces, in one pass over the text."""
    opened: list[int | None] = []  # where the content of each open brace starts, None if the brace is no box
    last = None
    for brace in re.finditer(r"\\boxed\{|[{}]", text):
        if brace[0] != "}":
            opened.append(brace.end() if brace[0] != "{" else None)
        elif opened and (start := opened.pop()) is not None and (last is None or start > last[0]):
            last = start, brace.start()
    return None if last is None else text[slice(*last)]


def one_of(text: str, meta: dict, marks: str) -> Check:
    """The boxed answer is one of the ``marks``, such as ABCDEF, and the right one (``meta["answer"]``)."""
    found = (boxed(text) or "").upper().strip().removesuffix(".").strip()
    if len(found) != 1 or found not in marks:
        return Check(False, 0.0, "no_answer")
    ok = found == meta["answer"]
    return Check(ok, float(ok), "right" if ok else "wrong", found)


def plan(text: str, style: str = "auto") -> list[str] | None:
    """The pieces of the plan: letters where they can be read, else the raw piece. None if there is no plan.

    ``action_plan`` is the benchmark's own parse. ``boxed`` also accepts words and letters without commas.
    """
    content = boxed(text)
    if style == "boxed" or (style == "auto" and content is not None):
        if content is None:
            return None
        pieces: list[str] = []
        for piece in re.split(r"[,\s]+", content.strip().upper()):
            piece = LETTER.get(piece, piece)
            pieces += piece if set(piece) <= set("UDLR") else [piece]
        return pieces
    for mark in MARKS:
        if mark in text:
            tail = text.split(mark, 1)[1]
            return [re.sub(r"[\"'\n.]", "", piece).strip() for piece in tail.split(",")]
    return None


def vsp(text: str, meta: dict, style: str = "auto") -> Check:
    """VSP planning: right on the first arrival at the goal, wrong on a hole, a bad piece or the end of the plan."""
    rows, pieces = meta["map"], plan(text, style)
    if pieces is None:
        return Check(False, 0.0, "no_plan")
    here, reason = find(rows, "S"), "short"
    for piece in pieces[:MOST_MOVES]:
        if piece not in ("U", "D", "L", "R"):
            reason = "bad_piece"
            break
        here = step(rows, here, piece)
        if cell_at(rows, here) in "HG":
            reason = "hole" if cell_at(rows, here) == "H" else "goal"
            break
    return Check(reason == "goal", float(reason == "goal"), reason, pieces)


def mirage(text: str, meta: dict) -> Check:
    """Mirage planning: every U, D, L, R letter of the boxed text is a move; right only if the last cell is the goal."""
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
    """Leading moves that each bring the goal one nearer, the length of a shortest plan, and the plan."""
    rows, pieces = meta["map"], plan(text)
    far, here = distances(rows), find(rows, "S")
    total = far[here]
    count = 0
    for piece in pieces or []:
        there = step(rows, here, piece) if piece in ("U", "D", "L", "R") else here
        if far.get(there) != far[here] - 1:
            break
        here, count = there, count + 1
    return count, total, pieces


def progress(text: str, meta: dict) -> Check:
    """Share of a shortest plan that the leading moves cover; ``ok`` if all of it."""
    count, total, pieces = _progress(text, meta)
    reason = "no_plan" if pieces is None else f"{count} of {total}"
    return Check(count == total, count / total, reason, pieces)


def exact(text: str, meta: dict) -> Check:
    """A shortest plan, moves after arrival ignored."""
    result = progress(text, meta)
    return Check(result.ok, float(result.ok), result.reason, result.parsed)


def exact_strict(text: str, meta: dict) -> Check:
    """A shortest plan and nothing more."""
    count, total, pieces = _progress(text, meta)
    ok = count == total == len(pieces or [])
    return Check(ok, float(ok), "no_plan" if pieces is None else f"{count} of {total}, {len(pieces)} pieces", pieces)


def fate(meta: dict) -> str:
    """Where the moves of ``meta`` lead: A the goal, B a hole, C neither. A hole ends the walk, the goal does not."""
    return {"G": "A", "H": "B"}.get(cell_at(meta["map"], walk(meta["map"], meta["moves"])[-1]), "C")


def vsp_task4(text: str, meta: dict) -> Check:
    """VSP task 4: Yes if no entered cell is a hole. ``Not safe`` counts as No, both words together as nothing."""
    content = boxed(text)
    if content is None:
        mark = next((m for m in ("<Output>", "**Output**", "Output") if m in text), None)
        content = "" if mark is None else text.split(mark, 1)[1]
    said = re.sub(r"[\"'\n.:\-*]", "", content[:10]).lower()
    yes, no = "yes" in said, "no" in said
    if yes == no:
        return Check(False, 0.0, "no_answer")
    ok = yes == (fate(meta) != "B")
    return Check(ok, float(ok), "right" if ok else "wrong", "Yes" if yes else "No")


def mirage_check(text: str, meta: dict) -> Check:
    """Mirage plan check: the boxed letter, A goal, B hole, C neither."""
    found = re.match(r"\W*([ABC])\b", (boxed(text) or "").upper())
    if not found:
        return Check(False, 0.0, "no_answer")
    ok = found[1] == fate(meta)
    return Check(ok, float(ok), "right" if ok else "wrong", found[1])
