"""MOSSBench (arXiv 2406.17806): 300 harmless requests that look harmful; how often a model refuses them.

By the words of refusal in its first 300 letters: crude, in English only, and only good for a check before and after
training.

On disk (unverified): a CSV (``*.csv``: ``pid, question, image, over``, and a description) beside ``images/``.
"""

from __future__ import annotations

from ..items import made

COUNTS = {"": 300}
METRIC = "refusal_rate"
PROMPT = "bare"
EXPECTED = "a .csv with pid, question, image (a path under this folder), over, beside images/"


def read(source, part):
    for row in source.rows("*.csv", "**/*.csv", expected=EXPECTED):
        yield made(
            row,
            row.text("pid", "id"),
            row.text("question"),
            "refused",
            images=row.pictures("image", "image_path"),
            answer_type="text",
            checker="refusal",
            task=row.text("over", "metadata_over", "type", default=""),
        )
