"""SAT (arXiv 2412.07755), the real test split: 150 spatial questions on one or more images.

``sat`` asks each question once, in the published order of its answers; ``sat/circular`` once in each rotation of the
answers (two questions out of one with two answers), and ``all_orders`` counts questions right in every order.

On disk: ``SAT_test.parquet`` of the Hub (``image_bytes`` (a list), ``question, answers, correct_answer,
question_type``), or ``**/test*.parquet`` of its second version (``images`` instead of ``image_bytes``). The number of
questions in all orders, 300, holds for two answers each. Questions on the same images form a cluster.
"""

from __future__ import annotations

from string import ascii_uppercase as LETTERS

from ..items import make_item

COUNTS = {"": 150, "circular": 300}
GROUPED = {"circular": "all_orders"}
EXPECTED = "SAT_test.parquet with image_bytes, question, answers, correct_answer, question_type"


def read(source, part):
    reader = read_orders if part == "circular" else read_item
    return source.items(reader, "**/SAT_test*.parquet", "**/test*.parquet", expected=EXPECTED)


def read_item(row, shift=0, cluster=""):
    options, images = [option.strip() for option in row.texts("answers")], row.images("image_bytes", "images")
    index = row.get("correct_answer_idx", default=None)
    if index is None:
        answer = row.text("correct_answer")
        index = options.index(answer) if options.count(answer) == 1 else -1
    if not isinstance(index, int) or not 0 <= index < len(options):
        raise row.error("correct_answer", f"is not one of the {len(options)} answers. Correct the row.")
    return make_item(
        row,
        row.default_id + (f"-{shift}" if shift else ""),
        row.question("question"),
        LETTERS[(index - shift) % len(options)],
        images=images,
        options=options[shift:] + options[:shift],
        task=row.text("question_type", default=""),
        cluster=cluster or " ".join(ref.name for ref in images),
        order=shift,
    )


def read_orders(row):
    """The question in every rotation of its answers."""
    return [read_item(row, shift, row.default_id) for shift in range(len(row.texts("answers")))]


def notes(items):
    orders = {item.meta["order"] for item in items}
    return {"order of answers": "as published" if orders == {0} else f"every rotation ({len(orders)})"}
