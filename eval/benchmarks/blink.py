"""BLINK (arXiv 2404.12390): fourteen tasks of perception; validation split, as the test labels are not public.

The question is the column ``prompt``, as in the published evaluation: it explains the task and lists the options.
``question`` is asked where there is no prompt.

On disk: ``{sub_task}/val-*.parquet`` (``idx, question, sub_task, image_1, ..., image_4, choices, answer, prompt``) or
the TSV of VLMEvalKit (``index, image, question, A, B, ..., answer, category``). The number 1,901 is unverified.
"""

from __future__ import annotations

from ..items import make_item

COUNTS = {"": 1901}
EXPECTED = (
    "{sub_task}/val-*.parquet with idx, question, sub_task, image_1 to image_4, choices, answer, prompt, or *.tsv with "
    "index, image, question, A, B, ..., answer, category"
)


def read(source, part):
    return source.items(read_item, "**/val-*.parquet", "*.tsv", expected=EXPECTED)


def read_item(row):
    images = row.images("image_1", "image", "image_path")
    for k in (2, 3, 4):
        images += row.images(f"image_{k}", optional=True)
    options, prompt = row.columns() or row.texts("choices"), row.text("prompt", default="-")
    return make_item(
        row,
        row.text("idx", "index"),
        row.question("question") if prompt == "-" else prompt,
        row.letter("answer"),
        images=images,
        options=options,
        task=row.text("sub_task", "category"),
        split="val",
        lists_options=prompt != "-" and all(option in prompt for option in options),
    )


def notes(items):
    return {"question": "prompt" if any(item.lists_options for item in items) else "question"}
