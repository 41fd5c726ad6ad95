"""MathVista (arXiv 2310.02255), testmini: 1,000 questions, half with choices.

Scored by rule, where its own harness asks a language model to find the answer: the two differ by points.

On disk: parquet (``pid, question, decoded_image or image, choices, unit, precision, answer, question_type, answer_type,
metadata``). Of a question with choices the gold answer is the text of one.
"""

from __future__ import annotations

import re
from string import ascii_uppercase as LETTERS

from ..items import made

COUNTS = {"": 1000}
EXPECTED = (
    "**/testmini-*.parquet with pid, question, decoded_image, choices, unit, precision, answer, question_type, "
    "answer_type, metadata"
)
KINDS = {
    "integer": ("number", "number"),
    "float": ("number", "number"),
    "text": ("text", "text"),
    "list": ("set", "numbers"),
}


def read(source, part):
    for row in source.rows("**/testmini*.parquet", "**/testmini*.jsonl", expected=EXPECTED):
        answer, options = row.text("answer"), row.texts("choices", default=[])
        meta = {}
        if row.text("question_type") == "multi_choice":
            if options.count(answer) != 1:
                raise row.wrong("answer", f"'{answer[:40]}' is not one of the choices. Correct the row.")
            kind, checker, answer = "letter", "letter", LETTERS[options.index(answer)]
        else:
            named = row.text("answer_type")
            if named not in KINDS:
                raise row.wrong("answer_type", f"'{named[:40]}' is none of {', '.join(KINDS)}. Correct the row.")
            (kind, checker), options = KINDS[named], []
            unit, precision = row.text("unit", default=None), row.text("precision", default=None)
            if precision is not None and not re.fullmatch(r"\d(\.0*)?", precision):
                raise row.wrong("precision", f"'{precision[:20]}' is no number of digits. Correct the row.")
            meta = {"unit": unit, "precision": precision and int(precision[0])}
            if named == "integer":
                meta["precision"] = None
        about = row.get("metadata", default={})
        yield made(
            row,
            row.text("pid"),
            row.text("question"),
            answer,
            images=row.pictures("decoded_image", "image"),
            options=options,
            answer_type=kind,
            checker=checker,
            split="testmini",
            task=about.get("task", "") if isinstance(about, dict) else "",
            **{name: given for name, given in meta.items() if given is not None},
        )
