"""OCR-Reasoning (arXiv 2505.17163): 1,069 questions on images with much text, 18 tasks.

The column ``format`` says how to write the answer and follows the question. Only the accuracy of answers is scored; the
official reasoning score needs a language model.

On disk: the TSV of VLMEvalKit (``index, image, question, answer, question_type`` (``multi_choice`` or ``free_form``),
``answer_type, answer_option, choices`` (a list as text), ``reasoning, language, format, task``).
"""

from __future__ import annotations

from ..items import make_item
from ..options import split_options
from ..scoring import is_number

COUNTS = {"": 1069}
EXPECTED = "*.tsv with index, image, question, answer, question_type, answer_type, answer_option, choices, format, task"


def read(source, part):
    return source.items(read_item, "*.tsv", "**/*.parquet", expected=EXPECTED)


def read_item(row):
    is_choice, answer = row.text("question_type", default="") == "multi_choice", row.text("answer")
    options = row.texts("choices") if is_choice else []
    question, form = row.question("question"), row.text("format", default="-")
    if options:
        kind, answer = "letter", row.letter("answer_option", "answer")
    else:
        kind = "number" if is_number(answer) else "text"
    return make_item(
        row,
        row.text("index"),
        question if form == "-" else f"{question}\n{form}",
        answer,
        images=row.images("image", "image_path"),
        options=options,
        answer_type=kind,
        task=row.text("task", "question_type", default=""),
        lists_options=len(split_options(question)[1]) == len(options) > 0,
    )
