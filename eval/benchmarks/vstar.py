"""V* (arXiv 2312.14135): small things in large pictures, 115 of attributes and 76 of relative positions.

On disk: parquet of the Hub (``image, text, label, category, question_id``; the text lists its options) or the TSV of
VLMEvalKit (``index, image, question, A, B, ..., answer, category``). The split into 115 and 76 is unverified. The
original folders, with boxes, are not read.
"""

from __future__ import annotations

from ..items import made
from ..options import parted

COUNTS = {"": 191}
EXPECTED = ("**/*.parquet with image, text, label, category, question_id, or *.tsv with index, image, question, A, B, "
            "..., answer, category")


def read(source, part):
    for row in source.rows("**/*.parquet", "*.tsv", expected=EXPECTED):
        question, options = parted(row.text("text", "question"))
        id = row.text("question_id", "index", default=str(row.number))
        yield made(row, id, question, row.letter("label", "answer"), images=row.pictures("image", "image_path"),
                   options=row.columns() or options, task=row.text("category", default=""))
