"""MMVP (arXiv 2401.06209): 150 pairs of images with nearly equal CLIP embeddings, one question a pair.

On disk: parquet of a corrected copy (``image, Question, Options, Correct Answer, Index`` or the same in lower case
with ``answer``), or the original ``Questions.csv`` beside ``MMVP Images/{Index}.jpg``. Both single and pair accuracy
are reported. One copy has corrected labels of 99, 100, 279 and 280; the protocol says which copy was used.
"""

from __future__ import annotations

import re

from ..items import make_item
from ..options import split_options

COUNTS = {"": 300}
GROUPED = {"": "pair_accuracy"}
EXPECTED = (
    "**/*.parquet with image, Question, Options, Correct Answer, Index, or Questions.csv beside "
    "'MMVP Images/{Index}.jpg'"
)


def read(source, part):
    return source.items(read_item, "**/*.parquet", "**/Questions.csv", expected=EXPECTED)


def read_item(row):
    index = row.text("Index", "index", "lndex")  # a spelling error of some copies
    if row.file.suffix == ".csv":
        folders = [row.folder / "MMVP Images"]
        images = [row.source.picture(f"{index}.jpg", folders, "Index", row.file, row.number)]
    else:
        images = row.images("image")
    options = split_options(row.text("Options", "options"))[1]
    if not re.fullmatch(r"\d{1,9}", index):
        raise row.error("Index", f"'{index[:20]}' is not a number. Expected: {EXPECTED}")
    return make_item(
        row,
        index,
        row.question("Question", "question"),
        row.letter("Correct Answer", "answer"),
        images=images,
        options=options,
        cluster=f"pair {(int(index) + 1) // 2}",
    )


def notes(items):
    gold = {item.id: item.answer for item in items if item.id in ("99", "100")}
    copy = {"BA": "corrected", "AB": "original"}.get(gold.get("99", "") + gold.get("100", ""), "unknown")
    return {"counted": "single and pair", "labels": copy}
