"""One benchmark question, and the prompt that presents it to a model."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from string import ascii_uppercase as LETTERS
from typing import Any

from PIL import Image as PILImage

from latent_reason.data.errors import DataError
from latent_reason.data.record import checked_text
from latent_reason.trace import Image, Message, Part, Text, Trace

from .readers import ImageRef, Row

ANSWER_TYPES = ("letter", "text", "number", "plan", "set")
#: prompt id -> instruction after question and options; {form} describes the answer
PROMPTS = {
    "boxed": "Put {form} in \\boxed{{}}.",
    "think": "Think step by step, then put {form} in \\boxed{{}}.",
    "tag": "Write {form} between <answer> and </answer>.",
    "direct": "Answer with {form} alone.",
    "bare": "",
}
ANSWER_FORMS = {
    "letter": "the letter of the right option",
    "text": "the answer",
    "number": "the number",
    "plan": "the plan",
    "set": "all that is right, separated by commas,",
}
IMAGE_MARK = re.compile(r"<image[ _]?(\d{0,3})>")


@dataclass(frozen=True)
class EvalItem:
    """A benchmark question with its gold answer.

    Args:
        options: texts of the options in order; "" if an option is part of the image or of the question.
        checker: a rule of scoring.py or tasks/checkers.py; "none" if no rule can grade the answer.
        cluster: shared by items that are not independent (cycles, pairs).
        boxes: (x0, y0, x1, y1) in pixels, as in the source.
        lists_options: the question lists its options itself, as published; they are not shown again.
    """

    id: str
    task: str
    split: str
    level: int | None
    images: tuple[ImageRef, ...]
    question: str
    options: tuple[str, ...]
    answer: str
    answer_type: str
    checker: str
    cluster: str
    boxes: tuple = ()
    meta: dict[str, Any] = field(default_factory=dict)
    lists_options: bool = False

    @property
    def letters(self) -> str:
        return LETTERS[: len(self.options)]

    @property
    def chance(self) -> float | None:
        """Accuracy of a random guess among the options; None if there are no options."""
        if self.checker in ("yes_no", "vsp_task4"):
            return 0.5
        return 1 / len(self.options) if self.options and self.checker == "letter" else None


def make_item(
    row: Row,
    id: str,
    question: str,
    answer: str,
    *,
    images: list[ImageRef],
    options=(),
    answer_type: str = "letter",
    checker: str = "",
    task: str = "",
    split: str = "test",
    level: int | None = None,
    cluster: str = "",
    boxes=(),
    lists_options: bool = False,
    **meta: Any,
) -> EvalItem:
    """Makes the item of a row. The column ``hint`` of a TSV precedes the question, as in VLMEvalKit.

    A question that is empty, because its text is in the image, and marks of images that the row does not have are asked
    as they are published; both are counted.

    Raises:
        DataError: neither question nor image, or an answer that is not an option.
    """
    options = tuple(option.strip() for option in options)
    if not question.strip() and not images:
        raise row.error("question", "is empty, and there is no image. Drop the row or add a question.", "E14")
    if not answer.strip():
        raise row.error("answer", "is empty, as in a split with hidden labels. Use a split with answers.", "E14")
    if answer_type == "letter" and answer not in LETTERS[: len(options)]:
        raise row.error("answer", f"'{answer[:40]}' is not a letter of the {len(options)} options. Correct the row.")
    if row.file.suffix == ".tsv" and (hint := row.text("hint", default="")):
        question = f"Hint: {hint}\n{question}"
    text = "\n".join([question, *options])
    try:
        checked_text(IMAGE_MARK.sub(" ", text), "question")
    except DataError as error:
        raise error.at(str(row.file), row.number) from None
    if not question.strip():
        row.remark("the question is in the image")
    if not all(1 <= number <= len(images) for number in marked_images(question if lists_options else text)):
        row.remark("the question marks an image that the row does not have")
    return EvalItem(
        id,
        task or "all",
        split,
        level,
        tuple(images),
        question.strip(),
        options,
        answer,
        answer_type,
        checker or answer_type,
        cluster or id,
        tuple(boxes),
        meta,
        lists_options,
    )


def choice_letter(row: Row, field: str, options: list[str], answer: str) -> str:
    """The letter of the option that equals a gold answer, as text or as a number. Raises DataError if it is not one of
    them. Options that repeat are to be dropped before: as published, a choice is right by its text."""
    equal = [i for i, option in enumerate(options) if option == answer] or [
        i for i, option in enumerate(options) if _as_number(option) == _as_number(answer) is not None
    ]
    if len(equal) != 1 or equal[0] >= len(LETTERS):
        raise row.error(field, f"'{answer[:40]}' is not one of the {len(options)} choices. Correct the row.")
    return LETTERS[equal[0]]


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def shown_options(item: EvalItem) -> list[str]:
    """The lines of the options that the question does not list itself."""
    lines = [f"{letter}. {option}" for letter, option in zip(item.letters, item.options, strict=True) if option]
    return [] if item.lists_options else lines


def prompt_text(item: EvalItem, prompt: str) -> str:
    """The text of an item: question, one option a line, then the instruction. ``prompt`` is a key of ``PROMPTS``, or a
    text with ``{question}`` and ``{form}``."""
    lines = [*([item.question] if item.question else []), *shown_options(item)]
    form = item.meta.get("form", ANSWER_FORMS[item.answer_type])
    if prompt in PROMPTS:
        return "\n".join([*lines, PROMPTS[prompt].format(form=form)]).strip()
    return prompt.replace("{question}", "\n".join(lines)).replace("{form}", form)


def build_trace(item: EvalItem, prompt: str, mode: str, blind: str | None = None) -> Trace:
    """The prompt as a trace. Images replace their marks (``<image 2>``, ``<image>``); images without a mark come first.

    Args:
        blind: "removed" drops the images, "grey" replaces them by gray images of the same sizes.
    """
    text = prompt_text(item, prompt)
    if blind == "removed":
        parts = (Text(IMAGE_MARK.sub("", text)),)
    else:
        images = [Image(ref.load()) for ref in item.images]
        if blind == "grey":
            images = [Image(PILImage.new("RGB", image.image.size, "grey")) for image in images]
        parts = tuple(interleave(text, images))
    return Trace(item.id, (Message("user", parts),), item.task, item.split, mode=mode)


def marked_images(text: str) -> list[int]:
    """The numbers of the images that a text marks; ``<image>`` without a number is the next one."""
    numbers, unnumbered = [], 0
    for number in IMAGE_MARK.findall(text):
        unnumbered += not number
        numbers.append(int(number or unnumbered))
    return numbers


def interleave(text: str, images: list[Image]) -> list[Part]:
    """Text and images in order. An image whose mark is repeated, or that the row does not have, is only named there."""
    pieces = IMAGE_MARK.split(text)  # text, number, text, ..., text
    numbers = marked_images(text)
    parts: list[Part] = [image for i, image in enumerate(images, 1) if i not in numbers]
    for i, piece in enumerate(pieces[::2]):
        if i and (numbers[i - 1] in numbers[: i - 1] or not 1 <= numbers[i - 1] <= len(images)):
            piece = f"image {numbers[i - 1]}{piece}"
        elif i:
            parts.append(images[numbers[i - 1] - 1])
        parts += [Text(piece)] if piece else []
    return parts
