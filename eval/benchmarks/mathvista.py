"""MathVista (arXiv 2310.02255), testmini: 1,000 questions, half with choices.

As published, the question names the unit and the form of the answer, choices are right by their text, and a choice
that repeats is shown once. Scored by rule. The official harness extracts the answer with a language model, so scores
can differ by points.

On disk: parquet (``pid, question, decoded_image or image, choices, unit, precision, answer, question_type, answer_type,
metadata``). The gold answer of a question with choices is the text of a choice.
"""

from __future__ import annotations

import re

from ..items import choice_letter, make_item

COUNTS = {"": 1000}
EXPECTED = (
    "**/testmini-*.parquet with pid, question, decoded_image, choices, unit, precision, answer, question_type, "
    "answer_type, metadata"
)
#: answer_type -> type, checker and form of the answer
KINDS = {
    "integer": ("number", "number", "the whole number"),
    "float": ("number", "number", "the number"),
    "text": ("text", "text", "the answer"),
    "list": ("set", "numbers", "the list, such as [1, 2, 3],"),
}


def read(source, part):
    return source.items(read_item, "**/testmini*.parquet", "**/testmini*.jsonl", expected=EXPECTED)


def read_item(row):
    is_choice = row.text("question_type") == "multi_choice"
    kind, checker, answer, options, meta = choice_of(row) if is_choice else free_form_of(row)
    unit, metadata = row.text("unit", default=None), row.get("metadata", default={})
    return make_item(
        row,
        row.text("pid"),
        row.question("question") + (f" (Unit: {unit})" if unit else ""),
        answer,
        images=row.images("decoded_image", "image"),
        options=options,
        answer_type=kind,
        checker=checker,
        split="testmini",
        task=metadata.get("task", "") if isinstance(metadata, dict) else "",
        **meta,
    )


def choice_of(row):
    """(type, checker, letter, choices, fields) of a question with choices."""
    options = list(dict.fromkeys(choice.strip() for choice in row.texts("choices")))
    return "letter", "letter", choice_letter(row, "answer", options, row.text("answer")), options, {}


def free_form_of(row):
    """(type, checker, answer, [], fields) of a question without choices."""
    answer_type, unit = row.text("answer_type"), row.text("unit", default=None)
    if answer_type not in KINDS:
        raise row.error("answer_type", f"'{answer_type[:40]}' is none of {', '.join(KINDS)}. Correct the row.")
    kind, checker, form = KINDS[answer_type]
    precision = row.text("precision", default=None)
    if precision is not None and not re.fullmatch(r"\d(\.0*)?", precision):
        raise row.error("precision", f"'{precision[:20]}' is not a number of digits. Correct the row.")
    meta = {"form": form} | ({"unit": unit} if unit else {})
    if answer_type == "float" and precision:
        digits = int(precision[0])
        meta |= {"precision": digits, "form": f"the number with {digits} decimal place{'s' * (digits != 1)}"}
    return kind, checker, row.text("answer"), [], meta
