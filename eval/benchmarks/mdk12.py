"""MDK12-Bench (arXiv 2504.05782): examination questions of six disciplines.

The official protocol also rewrites the questions; that is not done here.

On disk (field names and counts unverified): TSV, JSON lines or parquet with ``index, image or image_path, question,
answer, subject, question_type`` and options as columns A, B, ... or a list ``options``. Blanks are graded as numbers or
texts. Items without an image are included.
"""

from __future__ import annotations

import re

from ..items import make_item
from ..scoring import is_number

COUNTS = {"": 141_320}
EXPECTED = (
    "*.tsv, **/*.parquet or **/*.jsonl with index, image, question, answer, subject, question_type, A-D or options"
)


def read(source, part):
    for row in source.rows("*.tsv", "**/*.parquet", "**/*.jsonl", expected=EXPECTED):
        answer, options = row.text("answer"), row.columns() or row.texts("options", default=[])
        gold_letters = re.findall(r"[A-Z]", answer)
        if options and len(gold_letters) > 1 and not re.sub(r"[A-Z,;、，\s]", "", answer):
            kind, checker, answer = "set", "letters", "".join(sorted(gold_letters))
        elif options:
            kind, checker, answer = "letter", "letter", row.letter("answer")
        else:
            kind = checker = "number" if is_number(answer) else "text"
        yield make_item(
            row,
            row.text("index", "id", default=row.default_id),
            row.text("question"),
            answer,
            images=row.images("image", "image_path", "images", optional=True),
            options=options,
            answer_type=kind,
            checker=checker,
            task=row.text("subject", "discipline", "category", default=""),
        )
