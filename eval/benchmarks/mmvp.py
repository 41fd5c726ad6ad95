"""MMVP (arXiv 2401.06209): 150 pairs of pictures that CLIP takes for the same, one question a pair.

On disk: parquet of a corrected copy (``image, Question, Options, Correct Answer, Index`` or the same in small letters
with ``answer``), or the original ``Questions.csv`` beside ``MMVP Images/{Index}.jpg``. Both single and pair accuracy
are reported. Labels of 99, 100, 279 and 280 were corrected in one copy only: the protocol says which one was read.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from ..items import made
from ..options import parted
from ..readers import Shown

COUNTS = {"": 300}
GROUPED = "pair_accuracy"
EXPECTED = (
    "**/*.parquet with image, Question, Options, Correct Answer, Index, or Questions.csv beside "
    "'MMVP Images/{Index}.jpg'"
)


def read(source, part):
    for row in source.rows("**/*.parquet", "**/Questions.csv", expected=EXPECTED):
        index = row.text("Index", "index", "lndex")  # so misspelt in some copies
        if row.file.suffix == ".csv":
            place = PurePosixPath(row.file.relative_to(source.folder).parent) / "MMVP Images" / f"{index}.jpg"
            images = [Shown(source.own, str(place), "Index", row.file, row.number)]
        else:
            images = row.pictures("image")
        options = parted(row.text("Options", "options"))[1]
        if not re.fullmatch(r"\d{1,9}", index):
            raise row.wrong("Index", f"'{index[:20]}' is no number. Expected: {EXPECTED}")
        yield made(
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
