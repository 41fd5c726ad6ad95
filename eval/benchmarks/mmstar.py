"""MMStar (arXiv 2403.20330): 1,500 questions that need their image; the headline is the mean of six categories.

On disk: parquet of the Hub (``index, image, question, answer, category, l2_category``; the question contains its
options as ``Options: A: x, B: y``) or the TSV of VLMEvalKit (with columns A to D).
"""

from __future__ import annotations

from ..items import make_item
from ..options import split_options

COUNTS = {"": 1500}
METRIC = "category_mean"
EXPECTED = "**/*.parquet or *.tsv with index, image, question (which lists its options), answer, category, l2_category"


def read(source, part):
    return source.items(read_item, "**/*.parquet", "*.tsv", expected=EXPECTED)


def read_item(row):
    question, options = split_options(row.question("question"))
    options = row.columns() or options or [""] * 4  # the question lists them in another format
    return make_item(
        row,
        row.text("index"),
        question,
        row.letter("answer"),
        images=row.images("image", "image_path"),
        options=options,
        task=row.text("category"),
        split="val",
        l2=row.text("l2_category", default=""),
    )
