"""ZoomBench (inclusionAI, 2026): 845 questions on fine detail in six dimensions.

``full`` uses the whole image, ``crop`` the part that contains the answer; the zoom gap is the difference of the two
runs. Boxes are only in the authors' own JSON, which is not read.

On disk: parquet (``image, crop_image (may be null), prompt or query, answer or response``, and a dimension). Both pairs
of names occur; the name of the dimension is unverified.
"""

from __future__ import annotations

from ..items import make_item
from ..options import split_options
from ..scoring import is_number

COUNTS = {"full": 845, "crop": 845}
EXPECTED = "**/*.parquet with image, crop_image, prompt (or query), answer (or response), dimension (or category)"


def read(source, part):
    for row in source.rows("**/*.parquet", expected=EXPECTED):
        question, options = split_options(row.text("prompt", "query"))
        answer = row.text("answer", "response")
        if options:
            kind, answer = "letter", row.letter("answer", "response")
        else:
            kind = "number" if is_number(answer) else "text"
        images = row.images("crop_image", "image") if part == "crop" else row.images("image")
        yield make_item(
            row,
            row.text("id", default=row.default_id),
            question,
            answer,
            images=images,
            options=options,
            answer_type=kind,
            task=row.text("dimension", "category", "question_type", default=""),
        )
