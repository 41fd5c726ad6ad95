"""VisuLogic (arXiv 2504.15279): 1,000 puzzles of visual logic whose four options are part of the image.

It has a training set of the same kind, on which some models were trained with reinforcement learning. Do not evaluate
on training items.

On disk: ``data.jsonl`` beside the unpacked ``images/`` (``id, question, image_path, label, tag``), or parquet with
``image``.
"""

from __future__ import annotations

from ..items import make_item

COUNTS = {"": 1000}
EXPECTED = "data.jsonl with id, question, image_path, label beside the unpacked images, or **/*.parquet with image"


def read(source, part):
    return source.items(read_item, "**/data.jsonl", "**/*.parquet", expected=EXPECTED)


def read_item(row):
    return make_item(
        row,
        row.text("id", default=row.default_id),
        row.question("question"),
        row.letter("label"),
        images=row.images("image", "image_path"),
        options=[""] * 4,
        task=row.text("tag", default=""),
    )
