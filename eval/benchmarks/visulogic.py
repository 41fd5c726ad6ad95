"""VisuLogic (arXiv 2504.15279): 1,000 puzzles of visual logic whose four options are drawn in the picture.

It has a training set of the same kind, on which some models were taught by reward: never test on what was trained on.

On disk: ``data.jsonl`` beside the unpacked ``images/`` (``id, question, image_path, label, tag``), or parquet with
``image``.
"""

from __future__ import annotations

from ..items import made

COUNTS = {"": 1000}
EXPECTED = "data.jsonl with id, question, image_path, label beside the unpacked images, or **/*.parquet with image"


def read(source, part):
    for row in source.rows("**/data.jsonl", "**/*.parquet", expected=EXPECTED):
        yield made(
            row,
            row.text("id", default=row.place),
            row.text("question"),
            row.letter("label"),
            images=row.pictures("image", "image_path"),
            options=[""] * 4,
            task=row.text("tag", default=""),
        )
