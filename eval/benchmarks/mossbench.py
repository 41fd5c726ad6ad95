"""MOSSBench (arXiv 2406.17806): 300 harmless requests that seem harmful; the share that a model refuses.

A refusal is detected by phrases in the first 300 characters of a reply. This is crude and works in English only; use it
to compare a model before and after training.

On disk (unverified): a CSV (``*.csv``: ``pid, question, image, over``, and a description) beside ``images/``.
"""

from __future__ import annotations

from ..items import make_item

COUNTS = {"": 300}
METRIC = "refusal_rate"
PROMPT = "bare"
EXPECTED = "a .csv with pid, question, image (a path under this folder), over, beside images/"


def read(source, part):
    for row in source.rows("*.csv", "**/*.csv", expected=EXPECTED):
        yield make_item(
            row,
            row.text("pid", "id"),
            row.text("question"),
            "refused",
            images=row.images("image", "image_path"),
            answer_type="text",
            checker="refusal",
            task=row.text("over", "metadata_over", "type", default=""),
        )
