"""V* (arXiv 2312.14135): small objects in large images, 115 questions on attributes and 76 on relative positions.

On disk: parquet of the Hub (``image, text, label, category, question_id``; the text lists its options), the original
folders (``test_questions.jsonl`` of the same fields beside ``{category}/{name}.jpg`` with ``{name}.json``, whose
``bbox`` lists x, y, width, height) or the TSV of VLMEvalKit (``index, image, question, A, B, ..., answer, category``).
The split into 115 and 76 is unverified.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from ..items import make_item
from ..options import split_options

COUNTS = {"": 191}
EXPECTED = (
    "**/*.parquet or test_questions.jsonl with image, text, label, category, question_id, or *.tsv with index, "
    "image, question, A, B, ..., answer, category"
)


def read(source, part):
    return source.items(read_item, "**/*.parquet", "test_questions.jsonl", "*.tsv", expected=EXPECTED)


def read_item(row):
    question, options = split_options(row.question("text", "question"))
    id = row.text("question_id", "index", default=row.default_id)
    return make_item(
        row,
        id,
        question,
        row.letter("label", "answer"),
        images=row.images("image", "image_path"),
        options=row.columns() or options,
        task=row.text("category", default=""),
        boxes=boxes(row),
    )


def boxes(row):
    """Boxes of the objects in the question, from the original folders: (x0, y0, x1, y1) in pixels."""
    if row.file.suffix != ".jsonl":
        return []
    path = PurePosixPath(row.text("image")).with_suffix(".json")
    if not (row.source.folder / path).is_file():
        row.remark("the boxes are missing")
        return []
    annotation = row.source.json(path, EXPECTED)
    try:
        return [(x, y, x + width, y + height) for x, y, width, height in annotation["bbox"]]
    except (KeyError, TypeError, ValueError):
        raise row.error("bbox", f"'{path}' has no list of x, y, width, height. Copy it again.") from None
