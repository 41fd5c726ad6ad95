"""RealWorldQA (xAI, 2024): 765 questions on photographs of streets and rooms; letters, numbers and short texts.

On disk: parquet of the Hub (``image, question, answer``; the question contains one option a line) or the TSV of
VLMEvalKit (``index, image, question, A, B, ..., answer``).
"""

from __future__ import annotations

from ..items import make_item
from ..options import split_options
from ..scoring import is_number

COUNTS = {"": 765}
EXPECTED = "**/*.parquet with image, question, answer, or *.tsv with index, image, question, A, B, ..., answer"


def read(source, part):
    return source.items(read_item, "**/*.parquet", "*.tsv", expected=EXPECTED)


def read_item(row):
    question, options = split_options(row.question("question"))
    options, answer = row.columns() or options, row.text("answer")
    if options:
        kind, answer = "letter", row.letter("answer")
    else:
        kind = "number" if is_number(answer) else "text"
    return make_item(
        row,
        row.text("index", default=row.default_id),
        question,
        answer,
        images=row.images("image", "image_path"),
        options=options,
        answer_type=kind,
        checker="yes_no" if answer.lower() in ("yes", "no") else "",
    )
