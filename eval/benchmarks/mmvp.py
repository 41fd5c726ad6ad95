"""MMVP (arXiv 2401.06209): 150 pairs of images with nearly equal CLIP embeddings, one question a pair.

On disk: parquet of a corrected copy (``image, Question, Options, Correct Answer, Index`` or the same in lower case
with ``answer``), or the original ``Questions.csv`` beside ``MMVP Images/{Index}.jpg``. Both single and pair accuracy
are reported. One copy has corrected labels of 99, 100, 279 and 280; the protocol says which copy was used.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from ..items import make_item
from ..options import split_options
from ..readers import ImageRef

COUNTS = {"": 300}
GROUPED = "pair_accuracy"
EXPECTED = (
    "**/*.parquet with image, Question, Options, Correct Answer, Index, or Questions.csv beside "
    "'MMVP Images/{Index}.jpg'"
)


def read(source, part):
    for row in source.rows("**/*.parquet", "**/Questions.csv", expected=EXPECTED):
        index = row.text("Index", "index", "lndex")  # a spelling error of some copies
        if row.file.suffix == ".csv":
            path = PurePosixPath(row.file.relative_to(source.folder).parent) / "MMVP Images" / f"{index}.jpg"
            images = [ImageRef(source.images, str(path), "Index", row.file, row.number)]
        else:
            images = row.images("image")
        options = split_options(row.text("Options", "options"))[1]
        if not re.fullmatch(r"\d{1,9}", index):
            raise row.error("Index", f"'{index[:20]}' is not a number. Expected: {EXPECTED}")
        yield make_item(
            row,
            index,
            row.text("Question", "question"),
            row.letter("Correct Answer", "answer"),
            images=images,
            options=options,
            cluster=f"pair {(int(index) + 1) // 2}",
        )


def notes(items):
    gold = {item.id: item.answer for item in items if item.id in ("99", "100")}
    copy = {"BA": "corrected", "AB": "original"}.get(gold.get("99", "") + gold.get("100", ""), "unknown")
    return {"counted": "single and pair", "labels": copy}
