"""MathVista (arXiv 2310.02255), testmini: 1,000 questions, half with choices.

Scored by rule. The official harness extracts the answer with a language model, so scores can differ by points.

On disk: parquet (``pid, question, decoded_image or image, choices, unit, precision, answer, question_type, answer_type,
metadata``). The gold answer of a question with choices is the text of a choice.
"""

from __future__ import annotations

import re
from string import ascii_uppercase as LETTERS

from ..items import make_item

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
                raise row.error("answer", f"'{answer[:40]}' is not one of the choices. Correct the row.")
            kind, checker, answer = "letter", "letter", LETTERS[options.index(answer)]
        else:
            answer_type = row.text("answer_type")
            if answer_type not in KINDS:
                raise row.error("answer_type", f"'{answer_type[:40]}' is none of {', '.join(KINDS)}. Correct the row.")
            (kind, checker), options = KINDS[answer_type], []
            unit, precision = row.text("unit", default=None), row.text("precision", default=None)
            if precision is not None and not re.fullmatch(r"\d(\.0*)?", precision):
                raise row.error("precision", f"'{precision[:20]}' is not a number of digits. Correct the row.")
            meta = {"unit": unit, "precision": precision and int(precision[0])}
            if answer_type == "integer":
                meta["precision"] = None
        metadata = row.get("metadata", default={})
        yield make_item(
            row,
            row.text("pid"),
            row.text("question"),
            answer,
            images=row.images("decoded_image", "image"),
            options=options,
            answer_type=kind,
            checker=checker,
            split="testmini",
            task=metadata.get("task", "") if isinstance(metadata, dict) else "",
            **{name: value for name, value in meta.items() if value is not None},
        )
