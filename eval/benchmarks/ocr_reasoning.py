"""OCR-Reasoning (arXiv 2505.17163): 1,069 questions on images with much text, 18 tasks.

Only the accuracy of answers is scored; the official reasoning score needs a language model.

On disk: the TSV of VLMEvalKit (``index, image, question, answer, question_type, answer_type, answer_option, choices,
reasoning, language, format``). The content of ``choices`` and ``answer_option`` is unverified.
"""

from __future__ import annotations

from ..items import make_item
from ..scoring import is_number

COUNTS = {"": 1069}
EXPECTED = "*.tsv with index, image, question, answer, question_type, answer_type, answer_option, choices"


def read(source, part):
    for row in source.rows("*.tsv", "**/*.parquet", expected=EXPECTED):
        options, answer = row.texts("choices", default=[]), row.text("answer")
        if options:
            kind, answer = "letter", row.letter("answer_option", "answer")
        else:
            kind = "number" if is_number(answer) else "text"
        yield make_item(
            row,
            row.text("index"),
            row.text("question"),
            answer,
            images=row.images("image", "image_path"),
            options=options,
            answer_type=kind,
            task=row.text("question_type", default=""),
        )
