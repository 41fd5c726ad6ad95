"""ZoomBench (inclusionAI, 2026): 845 questions on fine detail in six dimensions.

``full`` uses the whole image, ``crop`` the part that contains the answer; the zoom gap is the difference of the two
runs. Boxes are only in the authors' own JSON, which is not read.

On disk: ``data/test.parquet`` (``id, query, response, question_type`` (``mcq`` or open), ``image, crop_image``, which may
be null); ``prompt`` and ``answer`` are the names of the dataset card. The query lists its options; a response is a
letter, with or without the text of its option. The name of the dimension is unverified.
"""

from __future__ import annotations

from ..items import make_item
from ..options import split_options
from ..scoring import is_number

COUNTS = {"full": 845, "crop": 845}
EXPECTED = "**/*.parquet with image, crop_image, query (or prompt), response (or answer), dimension (or category)"


def read(source, part):
    fields = ("crop_image", "image") if part == "crop" else ("image",)
    return source.items(lambda row: read_item(row, fields), "**/*.parquet", expected=EXPECTED)


def read_item(row, fields):
    question, options = split_options(row.question("query", "prompt"))
    options, answer = options or row.texts("options", "choices", default=[]), row.text("response", "answer")
    if options:
        kind, answer = "letter", row.letter("response", "answer")
    else:
        kind = "number" if is_number(answer) else "text"
    return make_item(
        row,
        row.text("id", default=row.default_id),
        question,
        answer,
        images=row.images(*fields),
        options=options,
        answer_type=kind,
        task=row.text("dimension", "category", "question_type", default=""),
    )
