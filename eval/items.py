"""One question of a benchmark and how a model is asked it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from string import ascii_uppercase as LETTERS
from typing import Any

from PIL import Image as PILImage

from latent_reason.data.errors import DataError
from latent_reason.data.record import checked_text
from latent_reason.trace import Image, Message, Part, Text, Trace

from .readers import Row, Shown

TYPES = ("letter", "text", "number", "plan", "set")
#: prompt id -> what stands after question and options; {form} is what the answer is
PROMPTS = {
    "boxed": "Put {form} in \\boxed{{}}.",
    "think": "Think step by step, then put {form} in \\boxed{{}}.",
    "tag": "Write {form} between <answer> and </answer>.",
    "direct": "Answer with {form} alone.",
    "bare": "",
}
FORMS = {
    "letter": "the letter of the right option",
    "text": "the answer",
    "number": "the number",
    "plan": "the plan",
    "set": "all that is right, separated by commas,",
}
MARK = re.compile(r"<image[ _]?(\d{0,3})>")


@dataclass(frozen=True)
class EvalItem:
    """``options`` are in order, "" where an option is drawn in the picture or stands in the question. ``checker`` names
    a rule of scoring.py or tasks/checkers.py, "" where no rule can tell a right answer. ``cluster`` is shared by items
    that are not independent (cycles, pairs). ``boxes`` are (x0, y0, x1, y1) in pixels, as the source gives them."""

    id: str
    task: str
    split: str
    level: int | None
    images: tuple[Shown, ...]
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
        """How often a blind guess among what is offered is right; None where nothing is offered."""
        if self.checker in ("yes_no", "vsp_task4"):
            return 0.5
        return 1 / len(self.options) if self.options and self.checker == "letter" else None


def made(
    row: Row,
    id: str,
    question: str,
    answer: str,
    *,
    images: list[Shown],
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
    """The item of a row; the column ``hint`` of a TSV is asked before its question, as VLMEvalKit does. Raises
    DataError for an empty question, an answer that is no option or a mark without its picture."""
    options = tuple(option.strip() for option in options)
    if not question.strip():
        raise row.wrong("question", "empty. Drop the row or fill it.", "E14")
    if not answer.strip():
        raise row.wrong("answer", "empty, as in a split whose labels are hidden. Take the one with answers.", "E14")
    if answer_type == "letter" and answer not in LETTERS[: len(options)]:
        raise row.wrong("answer", f"'{answer[:40]}' is no letter of {len(options)} options. Correct the row.")
    if row.file.suffix == ".tsv" and (hint := row.text("hint", default="")):
        question = f"Hint: {hint}\n{question}"
    for mark in MARK.findall("\n".join([question, *options])):
        if mark and not 1 <= int(mark) <= len(images):
            raise row.wrong("question", f"shows picture {mark}, the row has {len(images)}. Correct one of them.", "E10")
    try:
        checked_text(MARK.sub(" ", "\n".join([question, *options])), "question")
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


def asked(item: EvalItem, prompt: str) -> str:
    """The words of an item: question, options a line each, and the ``prompt`` by its id or as a text with
    ``{question}`` and ``{form}``."""
    lines = [
        item.question,
        *(f"{letter}. {option}" for letter, option in zip(item.letters, item.options, strict=True) if option),
    ]
    form = item.meta.get("form", FORMS[item.answer_type])
    if prompt in PROMPTS:
        return "\n".join([*lines, PROMPTS[prompt].format(form=form)]).strip()
    return prompt.replace("{question}", "\n".join(lines)).replace("{form}", form)


def trace(item: EvalItem, prompt: str, mode: str, blind: str | None = None) -> Trace:
    """What a model is shown: pictures at their marks (``<image 2>``, ``<image>``), those without a mark first.
    ``blind`` is "removed" for no pictures, "grey" for grey ones of the same sizes."""
    words = asked(item, prompt)
    if blind == "removed":
        return Trace(item.id, (Message("user", (Text(MARK.sub("", words)),)),), item.task, item.split, mode=mode)
    pictures = [Image(shown.load()) for shown in item.images]
    if blind == "grey":
        pictures = [Image(PILImage.new("RGB", picture.image.size, "grey")) for picture in pictures]
    return Trace(item.id, (Message("user", tuple(placed(words, pictures))),), item.task, item.split, mode=mode)


def placed(words: str, pictures: list[Image]) -> list[Part]:
    """Words and pictures in order; a picture that is named again is only named."""
    pieces = MARK.split(words)  # text, number, text, ..., text
    numbers, nameless = [], 0
    for number in pieces[1::2]:
        nameless += not number
        numbers.append(int(number or nameless))
    parts: list[Part] = [picture for i, picture in enumerate(pictures, 1) if i not in numbers]
    for i, text in enumerate(pieces[::2]):
        if i and numbers[i - 1] in numbers[: i - 1]:
            text = f"image {numbers[i - 1]}{text}"
        elif i and numbers[i - 1] <= len(pictures):
            parts.append(pictures[numbers[i - 1] - 1])
        parts += [Text(text)] if text else []
    return parts
