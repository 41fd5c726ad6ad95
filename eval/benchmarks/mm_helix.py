"""MM-HELIX (arXiv 2510.08540): 42 kinds of puzzles, five levels, six items each; only kinds that a rule can grade.

These are the kinds whose answer is a number, yes or no, and those with a verifier in puzzles.py. Other items are left
out, and the protocol gives their number.

On disk: parquet (``id or index, category, question, images or image, answer, initial_state, difficulty``) or the
``annotations.json`` of its generator beside ``images/``. Names of categories and the format of ``initial_state`` follow
the generator (unverified for the parquet).
"""

from __future__ import annotations

import re
from itertools import chain

from latent_reason.data.errors import DataError
from latent_reason.data.jsonl import decode

from ..items import make_item
from ..scoring import is_number

COUNTS = {"": 1260}
EXPECTED = (
    "**/*.parquet or **/annotations.json with index, category, question, image, answer, initial_state, difficulty"
)
FORMS = {
    "points24": "the expression",
    "hanoi": "the moves as (disk,peg), (disk,peg), ...",
    "sliding": "the numbers of the tiles to slide, in order,",
}


def read(source, part):
    for row in source.rows("**/*.parquet", "**/annotations.json", expected=EXPECTED):
        kind = re.sub(r"\W+", "_", row.text("category", "task", default=row.file.parent.name).lower()).strip("_")
        answer, state = row.text("answer"), state_of(row)
        checker, meta = checker_of(kind, answer, state)
        level = row.text("difficulty", "level", default="")
        yield make_item(
            row,
            f"{kind}-{row.text('id', 'index')}",
            row.text("question"),
            answer,
            images=row.images("images", "image"),
            answer_type="number" if checker == "number" else "plan",
            checker=checker or "none",
            task=kind,
            level=int(level) if re.fullmatch(r"\d{1,3}", level) else None,
            **meta,
        )


def checker_of(kind: str, answer: str, state) -> tuple[str, dict]:
    """(checker, its meta fields); the checker is "" if no rule can grade the answer."""
    numbers = [n for n in state if isinstance(n, int)] if isinstance(state, list) else []
    rows = [row for row in state if isinstance(row, list)] if isinstance(state, list) else []
    if "24" in kind and len(numbers) == 4:
        return "points24", {"numbers": numbers, "form": FORMS["points24"]}
    if "hanoi" in kind and len(rows) > 2:
        return "hanoi", {"pegs": rows, "form": FORMS["hanoi"]}
    if "sliding" in kind and rows and sorted(chain(*rows)) == [*range(len(rows) * len(rows[0]))]:
        return "sliding", {"board": rows, "form": FORMS["sliding"]}
    if answer.lower() in ("yes", "no"):
        return "yes_no", {"form": "yes or no"}
    return ("number", {}) if is_number(answer) else ("", {})


def state_of(row):
    """The initial state; a state that is stored as JSON text is parsed."""
    state = row.get("initial_state", default=None)
    try:
        return decode(state.encode()) if isinstance(state, str) else state
    except DataError:
        return state
