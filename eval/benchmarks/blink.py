"""BLINK (arXiv 2404.12390): fourteen tasks of perception; validation split, as the test labels are not public.

On disk: ``{sub_task}/val-*.parquet`` (``idx, question, sub_task, image_1, ..., image_4, choices, answer, prompt``) or
the TSV of VLMEvalKit (``index, image, question, A, B, ..., answer, category``). The number 1,901 is unverified.
"""

from __future__ import annotations

from ..items import make_item

COUNTS = {"": 1901}
EXPECTED = (
    "{sub_task}/val-*.parquet with idx, question, sub_task, image_1 to image_4, choices, answer, or *.tsv with "
    "index, image, question, A, B, ..., answer, category"
)


def read(source, part):
    for row in source.rows("**/val-*.parquet", "*.tsv", expected=EXPECTED):
        images = row.images("image_1", "image", "image_path")
        for k in (2, 3, 4):
            images += row.images(f"image_{k}", optional=True)
        yield make_item(
            row,
            row.text("idx", "index"),
            row.text("question"),
            row.letter("answer"),
            images=images,
            options=row.columns() or row.texts("choices"),
            task=row.text("sub_task", "category"),
            split="val",
        )
