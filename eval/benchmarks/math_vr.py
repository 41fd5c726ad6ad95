"""Math-VR (arXiv 2510.11718): 5,000 questions of mathematics in two languages.

Answer correctness only, by rule and only where every gold answer is a number: its own two scores are given by a judge.
The others are left out, and the protocol says how many.

On disk: parquet (``question, answers, number_of_answers, category``; the field of pictures is unverified: ``image``,
``images`` or ``question_images``).
"""

from __future__ import annotations

from ..items import made
from ..scoring import value

COUNTS = {"": 5000}
EXPECTED = "**/*.parquet with question, answers (a list), number_of_answers, category, and image or images"


def read(source, part):
    for row in source.rows("**/*.parquet", "**/*.jsonl", expected=EXPECTED):
        answers = row.texts("answers")
        one = len(answers) == 1
        plain = all((found := value(answer)) and not found.unit and found.decimals is not None for answer in answers)
        checker = "none" if not plain else "number" if one else "numbers"
        form = {} if one else {"form": f"the {len(answers)} numbers in order, separated by commas,"}
        yield made(
            row,
            row.text("id", "index", default=row.place),
            row.text("question"),
            ", ".join(answers),
            images=row.pictures("image", "images", "question_images", optional=True),
            answer_type="number" if one else "set",
            checker=checker,
            task=row.text("category", default=""),
            **form,
        )
