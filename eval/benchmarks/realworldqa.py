"""RealWorldQA (xAI, 2024): 765 questions about photographs from cars and rooms; letters, numbers and short texts.

On disk: parquet of the Hub (``image, question, answer``; options stand in the question a line each) or the TSV of
VLMEvalKit (``index, image, question, A, B, ..., answer``).
"""

from __future__ import annotations

from ..items import made
from ..options import parted
from ..scoring import numeric

COUNTS = {"": 765}
EXPECTED = "**/*.parquet with image, question, answer, or *.tsv with index, image, question, A, B, ..., answer"


def read(source, part):
    for row in source.rows("**/*.parquet", "*.tsv", expected=EXPECTED):
        question, options = parted(row.text("question"))
        options, answer = row.columns() or options, row.text("answer")
        if options:
            kind, answer = "letter", row.letter("answer")
        else:
            kind = "number" if numeric(answer) else "text"
        yield made(
            row,
            row.text("index", default=row.place),
            question,
            answer,
            images=row.pictures("image", "image_path"),
            options=options,
            answer_type=kind,
            checker="yes_no" if answer.lower() in ("yes", "no") else "",
        )
