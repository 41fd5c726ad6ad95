"""MM-HELIX (arXiv 2510.08540): 42 kinds of puzzles, five levels, six items each; those that a rule verifies.

That is kinds whose answer is one number, or yes or no, and those of which a verifier is here (puzzles.py). The others
are left out, and the protocol says how many.

On disk: parquet (``id or index, category, question, images or image, answer, initial_state, difficulty``) or the
``annotations.json`` of its generator beside ``images/``. Names of categories, and the forms of ``initial_state``, are
those of its generator (unverified for the parquet).
"""

from __future__ import annotations

import re
from itertools import chain

from latent_reason.data.errors import DataError
from latent_reason.data.jsonl import decode

from ..items import made
from ..scoring import numeric

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
        checker, meta = rule(kind, answer, state)
        level = row.text("difficulty", "level", default="")
        yield made(
            row,
            f"{kind}-{row.text('id', 'index')}",
            row.text("question"),
            answer,
            images=row.pictures("images", "image"),
            answer_type="number" if checker == "number" else "plan",
            checker=checker or "none",
            task=kind,
            level=int(level) if re.fullmatch(r"\d{1,3}", level) else None,
            **meta,
        )


def rule(kind: str, answer: str, state) -> tuple[str, dict]:
    """(checker, what it needs); no checker where no rule here can tell a right answer."""
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
    return ("number", {}) if numeric(answer) else ("", {})


def state_of(row):
    """The initial state, which may be written as JSON in a text."""
    state = row.get("initial_state", default=None)
    try:
        return decode(state.encode()) if isinstance(state, str) else state
    except DataError:
        return state
