"""SAT (arXiv 2412.07755), the real test split: 150 spatial questions on one or more images.

``sat`` asks each question once, in the published order of its answers; ``sat/circular`` once in each rotation of the
answers (two questions out of one with two answers), and ``all_orders`` counts questions right in every order.

On disk: ``SAT_test.parquet`` of the Hub (``image_bytes`` (a list), ``question, answers, correct_answer`` or
``correct_answer_idx, question_type``), or ``**/test*.parquet`` of its second version (``images`` instead of ``image_bytes``). The number of
questions in all orders, 300, holds for two answers each. Questions on the same images form a cluster.
"""

from __future__ import annotations

from ..items import choice_letter, make_item

COUNTS = {"": 150, "circular": 300}
GROUPED = {"circular": "all_orders"}
EXPECTED = "SAT_test.parquet with image_bytes, question, answers, correct_answer, question_type"


def read(source, part):
    reader = read_orders if part == "circular" else read_item
    return source.items(reader, "**/SAT_test*.parquet", "**/test*.parquet", expected=EXPECTED)


def read_item(row, shift=0, cluster=""):
    options, images = answers_of(row), row.images("image_bytes", "images")
    options = options[shift:] + options[:shift]
    return make_item(
        row,
        row.default_id + (f"-{shift}" if shift else ""),
        row.question("question"),
        choice_letter(row, "correct_answer", options, right_answer(row)),
        images=images,
        options=options,
        task=row.text("question_type", default=""),
        cluster=cluster or " ".join(ref.name for ref in images),
        order=shift,
    )


def right_answer(row):
    """The text of the right answer, which some copies give by its index."""
    index, answers = row.get("correct_answer_idx", default=None), row.texts("answers")
    is_index = isinstance(index, int) and 0 <= index < len(answers)
    return row.text("correct_answer", default=None) or (
        answers[index].strip() if is_index else row.text("correct_answer")
    )


def answers_of(row):
    """The answers of a question; one that repeats is shown once."""
    return list(dict.fromkeys(answer.strip() for answer in row.texts("answers")))


def read_orders(row):
    """The question in every rotation of its answers."""
    return [read_item(row, shift, row.default_id) for shift in range(len(answers_of(row)))]


def notes(items):
    orders = {item.meta["order"] for item in items}
    return {"order of answers": "as published" if orders == {0} else f"every rotation ({len(orders)})"}
