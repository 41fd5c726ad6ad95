"""SAT (arXiv 2412.07755), the real test split: spatial questions on one or more images.

On disk: ``**/test*.parquet`` (``image_bytes (a list), question, answers, correct_answer or correct_answer_idx,
question_type``). The count 150 is unverified. Questions on the same images form a cluster.
"""

from __future__ import annotations

from string import ascii_uppercase as LETTERS

from ..items import make_item

COUNTS = {"": 150}
EXPECTED = "**/test*.parquet with image_bytes, question, answers, correct_answer or correct_answer_idx"


def read(source, part):
    for row in source.rows("**/test*.parquet", expected=EXPECTED):
        options, images = row.texts("answers"), row.images("image_bytes", "images")
        index = row.get("correct_answer_idx", default=None)
        if index is None:
            answer = row.text("correct_answer")
            index = options.index(answer) if options.count(answer) == 1 else -1
        if not isinstance(index, int) or not 0 <= index < len(options):
            raise row.error("correct_answer", f"is not one of the {len(options)} answers. Correct the row.")
        yield make_item(
            row,
            row.default_id,
            row.text("question"),
            LETTERS[index],
            images=images,
            options=options,
            task=row.text("question_type", default=""),
            cluster=" ".join(ref.name for ref in images),
        )
