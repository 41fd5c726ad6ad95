"""VisualPuzzles (arXiv 2504.10342): 1,168 puzzles of five kinds that need no domain knowledge.

The official harness replaces an answer that cannot be parsed by a random letter; here such an answer is wrong.

On disk: ``**/train-*.parquet`` (``id, image, question, options (four, or null if they are part of the image), answer,
category, difficulty``).
"""

from __future__ import annotations

from ..items import make_item

COUNTS = {"": 1168}
EXPECTED = "**/*.parquet with image, question, options (four or null), answer, category, difficulty"


def read(source, part):
    return source.items(read_item, "**/*.parquet", expected=EXPECTED)


def read_item(row):
    return make_item(
        row,
        row.text("id", default=row.default_id),
        row.question("question"),
        row.letter("answer"),
        images=row.images("image"),
        options=row.texts("options", default=None) or [""] * 4,
        task=row.text("category"),
        difficulty=row.text("difficulty", default=""),
    )
