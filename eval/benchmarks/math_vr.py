"""Math-VR (arXiv 2510.11718): 5,000 questions of mathematics in two languages, 2,000 in text and 3,000 with images.

Only the correctness of answers is scored, by rule: numbers, lists of numbers, and formulas by math-verify. The two official
scores need a language model. Other items are left out, and the protocol gives their number.

On disk: ``data/test-*.parquet`` (``id, question, answers, number_of_answers, category, image1, ..., image8``). The
question marks its images, as ``<image1>``; as published, only marked images are shown.
"""

from __future__ import annotations

import re

from ..items import make_item
from ..mathematics import is_formula
from ..scoring import parse_number

COUNTS = {"": 5000}
EXPECTED = "**/*.parquet with id, question, answers (a list), number_of_answers, category, image1 to image8"


def read(source, part):
    return source.items(read_item, "**/test*.parquet", "**/*.parquet", "**/*.jsonl", expected=EXPECTED)


def read_item(row):
    answers = [answer.strip() for answer in row.texts("answers")]
    is_single = len(answers) == 1
    is_numeric = all(
        (number := parse_number(answer)) and not number.unit and number.decimals is not None for answer in answers
    )
    if is_numeric:
        checker = "number" if is_single else "numbers"
    else:
        checker = "math" if is_single and is_formula(answers[0]) else "none"
    form = {} if is_single else {"form": f"the {len(answers)} numbers in order, separated by commas,"}
    if checker == "math":
        form = {"form": "the formula"}
    question, images = marked_images(row)
    return make_item(
        row,
        row.text("id", "index", default=row.default_id),
        question,
        ", ".join(answers),
        images=images,
        answer_type="number" if is_single else "set",
        checker=checker,
        task=row.text("category", default=""),
        **form,
    )


def marked_images(row):
    """The question with marks in order from 1, and the images they mark. A mark without an image stays as words."""
    question, images = row.question("question"), []
    for number in dict.fromkeys(re.findall(r"<image_?(\d+)>", question)):
        found = row.images(f"image{number}", f"image_{number}", optional=True)
        if not found:
            row.remark("the question marks an image that the row does not have")
        images += found
        mark = f"<image {len(images)}>" if found else f"image {number}"
        question = re.sub(rf"<image_?{number}>", mark, question)
    return question, images
