"""Math-VR (arXiv 2510.11718): 5,000 questions of mathematics in two languages.

Only the correctness of answers is scored, by rule, on items whose gold answers are all numbers. The two official scores
need a language model. Other items are left out, and the protocol gives their number.

On disk: parquet (``question, answers, number_of_answers, category``; the name of the image field is unverified:
``image``, ``images`` or ``question_images``).
"""

from __future__ import annotations

from ..items import make_item
from ..scoring import parse_number

COUNTS = {"": 5000}
EXPECTED = "**/*.parquet with question, answers (a list), number_of_answers, category, and image or images"


def read(source, part):
    for row in source.rows("**/*.parquet", "**/*.jsonl", expected=EXPECTED):
        answers = row.texts("answers")
        is_single = len(answers) == 1
        is_numeric = all(
            (number := parse_number(answer)) and not number.unit and number.decimals is not None for answer in answers
        )
        checker = "none" if not is_numeric else "number" if is_single else "numbers"
        form = {} if is_single else {"form": f"the {len(answers)} numbers in order, separated by commas,"}
        yield make_item(
            row,
            row.text("id", "index", default=row.default_id),
            row.text("question"),
            ", ".join(answers),
            images=row.images("image", "images", "question_images", optional=True),
            answer_type="number" if is_single else "set",
            checker=checker,
            task=row.text("category", default=""),
            **form,
        )
