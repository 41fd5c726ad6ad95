"""OCR-Reasoning (arXiv 2505.17163): 1,069 questions on pictures full of text, 18 tasks.

The accuracy of answers only: its reasoning score needs a judge.

On disk: the TSV of VLMEvalKit (``index, image, question, answer, question_type, answer_type, answer_option, choices,
reasoning, language, format``). What ``choices`` and ``answer_option`` hold is unverified.
"""

from __future__ import annotations

from ..items import made
from ..scoring import numeric

COUNTS = {"": 1069}
EXPECTED = "*.tsv with index, image, question, answer, question_type, answer_type, answer_option, choices"


def read(source, part):
    for row in source.rows("*.tsv", "**/*.parquet", expected=EXPECTED):
        options, answer = row.texts("choices", default=[]), row.text("answer")
        if options:
            kind, answer = "letter", row.letter("answer_option", "answer")
        else:
            kind = "number" if numeric(answer) else "text"
        yield made(
            row,
            row.text("index"),
            row.text("question"),
            answer,
            images=row.pictures("image", "image_path"),
            options=options,
            answer_type=kind,
            task=row.text("question_type", default=""),
        )
