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
    **meta: Any,
) -> EvalItem:
    """Makes the item of a row. The column ``hint`` of a TSV precedes the question, as in VLMEvalKit.

    Raises:
        DataError: empty question, answer that is not an option, or image mark without an image.
    """
    options = tuple(option.strip() for option in options)
    if not question.strip():
        raise row.error("question", "is empty. Drop the row or add a question.", "E14")
    if not answer.strip():
        raise row.error("answer", "is empty, as in a split with hidden labels. Use a split with answers.", "E14")
    if answer_type == "letter" and answer not in LETTERS[: len(options)]:
        raise row.error("answer", f"'{answer[:40]}' is not a letter of the {len(options)} options. Correct the row.")
    if row.file.suffix == ".tsv" and (hint := row.text("hint", default="")):
        question = f"Hint: {hint}\n{question}"
    for mark in IMAGE_MARK.findall("\n".join([question, *options])):
        if mark and not 1 <= int(mark) <= len(images):
            raise row.error(
                "question", f"refers to image {mark}, but the row has {len(images)}. Correct one of them.", "E10"
            )
    try:
        checked_text(IMAGE_MARK.sub(" ", "\n".join([question, *options])), "question")
    except DataError as error:
        raise error.at(str(row.file), row.number) from None
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
    )


def prompt_text(item: EvalItem, prompt: str) -> str:
    """The text of an item: question, one option a line, then the instruction. ``prompt`` is a key of ``PROMPTS``, or a
    text with ``{question}`` and ``{form}``."""
    lines = [
        item.question,
        *(f"{letter}. {option}" for letter, option in zip(item.letters, item.options, strict=True) if option),
    ]
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


def interleave(text: str, images: list[Image]) -> list[Part]:
    """Text and images in order. An image whose mark is repeated is only named there."""
    pieces = IMAGE_MARK.split(text)  # text, number, text, ..., text
    numbers, unnumbered = [], 0
    for number in pieces[1::2]:
        unnumbered += not number
        numbers.append(int(number or unnumbered))
    parts: list[Part] = [image for i, image in enumerate(images, 1) if i not in numbers]
    for i, piece in enumerate(pieces[::2]):
        if i and numbers[i - 1] in numbers[: i - 1]:
            piece = f"image {numbers[i - 1]}{piece}"
        elif i and numbers[i - 1] <= len(images):
            parts.append(images[numbers[i - 1] - 1])
        parts += [Text(piece)] if piece else []
    return parts
