"""ZoomBench (inclusionAI, 2026): 845 questions on fine detail in six dimensions.

``full`` shows the whole picture, ``crop`` the part that suffices: the zoom gap is the difference of the two runs. Boxes
are only in the authors' own JSON, which is not read.

On disk: parquet (``image, crop_image (may be null), prompt or query, answer or response``, and a dimension). Both pairs
of names are seen in the wild; that of the dimension is unverified.
"""

from __future__ import annotations

from ..items import made
from ..options import parted
from ..scoring import numeric

COUNTS = {"full": 845, "crop": 845}
EXPECTED = "**/*.parquet with image, crop_image, prompt (or query), answer (or response), dimension (or category)"


def read(source, part):
    for row in source.rows("**/*.parquet", expected=EXPECTED):
        question, options = parted(row.text("prompt", "query"))
        answer = row.text("answer", "response")
        if options:
            kind, answer = "letter", row.letter("answer", "response")
        else:
            kind = "number" if numeric(answer) else "text"
        images = row.pictures("crop_image", "image") if part == "crop" else row.pictures("image")
        yield made(
            row,
            row.text("id", default=row.place),
            question,
            answer,
            images=images,
            options=options,
            answer_type=kind,
            task=row.text("dimension", "category", "question_type", default=""),
        )
