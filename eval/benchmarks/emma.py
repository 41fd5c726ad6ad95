"""EMMA (arXiv 2501.05444): mathematics, physics, chemistry and coding questions that need both image and text.

On disk: ``**/*.parquet`` (``pid, context, question, options, answer, type, image_1, ..., image_5, subject, category``)
or a TSV with columns A, B, ... for the options. ``full`` has 2,788 items, ``mini`` 400 (both unverified). Open answers
are graded as numbers if the gold answer is a number, else as texts; the official harness uses a language model.
"""

from __future__ import annotations

from ..items import make_item
from ..scoring import is_number

COUNTS = {"full": 2788, "mini": 400}
EXPECTED = (
    "**/*.parquet or *.tsv with pid, context, question, options (or A, B, ...), answer, type, image_1 to "
    "image_5, subject, category"
)


def read(source, part):
    return source.items(read_item, "**/*.parquet", "*.tsv", expected=EXPECTED)


def read_item(row):
    context, question = row.text("context", default=""), row.text("question", default="")
    images = []
    for k in range(1, 6):
        images += row.images(f"image_{k}", optional=True)
    images = images or row.images("image", "image_1")
    kind, options = row.text("type").lower(), row.columns() or row.texts("options", default=[])
    answer = row.text("answer")
    if kind.startswith("open"):
        options, kind = [], "number" if is_number(answer) else "text"
    elif kind in ("mcq", "multiple choice", "multiple-choice"):
        answer, kind, options = row.letter("answer"), "letter", options or [""] * 4  # the options are in an image
    else:
        raise row.error("type", f"'{kind[:40]}' is neither multiple choice nor open. Correct the row.")
    return make_item(
        row,
        row.text("pid", "index"),
        f"{context}\n{question}",
        answer,
        images=images,
        options=options,
        answer_type=kind,
        task=row.text("subject"),
        category=row.text("category", default=""),
    )
