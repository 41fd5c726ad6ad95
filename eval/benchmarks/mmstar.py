"""MMStar (arXiv 2403.20330): 1,500 questions that need their picture; the headline is the mean of six categories.

On disk: parquet of the Hub (``index, image, question, answer, category, l2_category``; options stand in the question as
``Options: A: x, B: y``) or the TSV of VLMEvalKit (with columns A to D).
"""

from __future__ import annotations

from ..items import made
from ..options import parted

COUNTS = {"": 1500}
METRIC = "category_mean"
EXPECTED = "**/*.parquet or *.tsv with index, image, question (which lists its options), answer, category, l2_category"


def read(source, part):
    for row in source.rows("**/*.parquet", "*.tsv", expected=EXPECTED):
        question, options = parted(row.text("question"))
        options = row.columns() or options or [""] * 4  # they stand in the question in a way of their own
        yield made(
            row,
            row.text("index"),
            question,
            row.letter("answer"),
            images=row.pictures("image", "image_path"),
            options=options,
            task=row.text("category"),
            split="val",
            l2=row.text("l2_category", default=""),
        )
