"""VisualPuzzles (arXiv 2504.10342): 1,168 puzzles of five kinds that need no knowledge.

Its harness answers with a random letter where nothing parses; here that is wrong.

On disk: ``**/train-*.parquet`` (``id, image, question, options (four, or null: they are drawn in the picture), answer,
category, difficulty``).
"""

from __future__ import annotations

from ..items import made

COUNTS = {"": 1168}
EXPECTED = "**/*.parquet with image, question, options (four or null), answer, category, difficulty"


def read(source, part):
    for row in source.rows("**/*.parquet", expected=EXPECTED):
        yield made(
            row,
            row.text("id", default=row.place),
            row.text("question"),
            row.letter("answer"),
            images=row.pictures("image"),
            options=row.texts("options", default=None) or [""] * 4,
            task=row.text("category"),
            difficulty=row.text("difficulty", default=""),
        )
