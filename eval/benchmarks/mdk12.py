"""MDK12-Bench (arXiv 2504.05782): examination questions of six disciplines.

Rewriting the questions anew is part of its protocol and is not done here.

On disk (field names and numbers unverified): TSV, JSON lines or parquet with ``index, image or image_path, question,
answer, subject, question_type`` and options as columns A, B, ... or a list ``options``. Blanks are graded as numbers or
texts; items with no picture are asked without.
"""

from __future__ import annotations

import re

from ..items import made
from ..scoring import numeric

COUNTS = {"": 141_320}
EXPECTED = (
    "*.tsv, **/*.parquet or **/*.jsonl with index, image, question, answer, subject, question_type, A-D or options"
)


def read(source, part):
    for row in source.rows("*.tsv", "**/*.parquet", "**/*.jsonl", expected=EXPECTED):
        answer, options = row.text("answer"), row.columns() or row.texts("options", default=[])
        several = re.findall(r"[A-Z]", answer)
        if options and len(several) > 1 and not re.sub(r"[A-Z,;、，\s]", "", answer):
            kind, checker, answer = "set", "letters", "".join(sorted(several))
        elif options:
            kind, checker, answer = "letter", "letter", row.letter("answer")
        else:
            kind = checker = "number" if numeric(answer) else "text"
        yield made(
            row,
            row.text("index", "id", default=row.place),
            row.text("question"),
            answer,
            images=row.pictures("image", "image_path", "images", optional=True),
            options=options,
            answer_type=kind,
            checker=checker,
            task=row.text("subject", "discipline", "category", default=""),
        )
