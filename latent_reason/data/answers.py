"""Answers in texts of other projects: tags become a box, and a box is compared with the answer column.

``<think>`` and the stages of LLaVA-CoT (arXiv 2411.10440) only mark reasoning, so their tags are left out. ``<answer>``
and ``<CONCLUSION>`` hold the answer, which this library writes as ``\\boxed{...}``.
"""

from __future__ import annotations

import re
from fractions import Fraction

from ..trace import Message, Sketch, Text
from .errors import DataError
from .record import boxed

SIDES = ("refuse", "field", "text")
REASONING = re.compile(r"(?:</?(?:(?i:think|thinking)|SUMMARY|CAPTION|REASONING)>)+")  # <summary> is HTML
TAGS = ("answer", "CONCLUSION")
THOUGHT = re.compile(r"^[ \t]*THOUGHT \d+:[ \t]*", re.MULTILINE)
BOX = "\\boxed{"
END_OF_SENTENCE = tuple(".!?。！？")
#: (pattern, replacement) pairs that bring two ways to write a value in LaTeX together
LATEX = [
    (re.compile(r"\\(?:left|right|displaystyle|[,;:! ])|[$\s]"), ""),
    (re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox)\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\[dtc]frac"), r"\\frac"),
    (re.compile(r"\\(frac|sqrt)(\d)"), r"\\\1{\2}"),
    (re.compile(r"(\\frac\{[^{}]*\})(\w)"), r"\1{\2}"),
    (re.compile(r"\^\{?\\circ\}?|\\degree"), "°"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"^\(([A-Za-z])\)$"), r"\1"),
]
FRACTION = re.compile(r"(-?)\\frac\{(\d+)\}\{(\d+)\}")
NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|-?\.\d+|-?\d+/\d+")


def check_side(answer: str) -> None:
    """Raises ValueError for an unknown value of the option ``answer``."""
    if answer not in SIDES:
        raise ValueError(f"unknown answer '{answer}'. Use {', '.join(SIDES)}.")


# -- tags --------------------------------------------------------------------------------------------------------------
def split_at_tag(text: str, tag: str, field: str) -> list[str]:
    """Split ``text`` at a tag: outside, inside, ..., outside. Raises DataError (E05) for unpaired tags."""
    head, *pieces = re.split(f"<{tag}>", text, flags=re.IGNORECASE)
    result = [head]
    for piece in pieces:
        inside, *outside = re.split(f"</{tag}>", piece, maxsplit=1, flags=re.IGNORECASE)
        result += [inside, *outside]
        if not outside:
            raise DataError("E05", field, f"<{tag}> is not closed. Correct the tags.")
    if any(f"</{tag}>".casefold() in piece.casefold() for piece in result):
        raise DataError("E05", field, f"</{tag}> was not opened. Correct the tags.")
    return result


def box_answers(text: str, field: str) -> str:
    """Replace ``<answer> x </answer>`` by ``\\boxed{x}`` and leave tags of reasoning out. Words stay apart.

    Raises DataError: E05 for unpaired tags of an answer, E14 for an empty answer.
    """
    result = REASONING.sub(_gap, text)
    for tag in TAGS:
        pieces = split_at_tag(result, tag, field)
        for i in range(1, len(pieces), 2):
            pieces[i] = _box(pieces[i].strip(), field)
            before, after = pieces[i - 1][-1:], pieces[i + 1][:1]
            pieces[i] = "\n" * (before.isalnum() or before in END_OF_SENTENCE) + pieces[i] + "\n" * after.isalnum()
        result = "".join(pieces)
    return text if result == text else result.strip()


def _gap(tags: re.Match) -> str:
    """What stands in place of tags: a new line if they were all that kept two words apart."""
    around = tags.string[: tags.start()][-1:], tags.string[tags.end() :][:1]
    return "\n" if all(around) and not any(character.isspace() for character in around) else ""


def _box(answer: str, field: str) -> str:
    if not answer:
        raise DataError("E14", field, "empty answer. Drop the row or fill it.")
    if boxed(answer) is not None:
        return answer
    box = f"{BOX}{answer}}}"
    if last_box(box) != answer:
        raise DataError("E17", field, f"the answer '{answer[:80]}' has unbalanced braces. Balance them.")
    return box


# -- the answer of a row -----------------------------------------------------------------------------------------------
def end_with_answer(message: Message, answer: str | None, side: str) -> tuple[str | None, Message]:
    """The answer of a row, and its last turn with this answer in a box at the end.

    ``answer`` is that of the row's column; None: there is none. If the text boxes another value, ``side`` decides:
    field (the box of the text is written again), text or refuse.

    Raises DataError: E14 without a final text, E17 if the two differ and ``side`` is refuse.
    """
    parts = list(message.content)
    end = parts.pop() if isinstance(parts[-1], Text) else None
    content = None if end is None else last_box(end.text)
    if answer is not None and content is None:
        added = f"{BOX}{answer.strip()}}}"
        end = Text(f"{end.text.rstrip()} {added}" if end else added, end.loss if end else None)
        content = answer
    if end is None:
        raise DataError("E14", "answer", "missing: the last turn ends with an image. Add the answer.")
    if answer is not None and content is not None and not same_value(content, answer):
        if side == "refuse":
            raise DataError(
                "E17",
                "answer",
                f"'{answer[:80]}' but the text boxes '{content.strip()[:80]}'. Correct one of them, or say which one is "
                "right with --answer field or --answer text.",
            )
        if side == "field":
            head, _, rest = end.text.rpartition(BOX)
            end, content = Text(f"{head}{BOX}{answer.strip()}{rest[len(content) :]}", end.loss), answer
    answer = None if content is None or not content.strip() else content.strip()
    return answer, Message(message.role, (*parts, end))


def last_box(text: str) -> str | None:
    """The content of the last box. Code with unbalanced braces is read if its box ends the text."""
    content = boxed(text)
    if content is None and text.rstrip().endswith("}") and BOX in text:
        content = text.rstrip()[text.rfind(BOX) + len(BOX) : -1]
    return content


def same_value(first: str, second: str) -> bool:
    """Whether two answers are one value: the same text, number or LaTeX formula."""
    return first.strip() == second.strip() or _value(first) == _value(second)


def _value(text: str) -> Fraction | str:
    text = text.strip()
    for pattern, replacement in LATEX:
        text = pattern.sub(replacement, text)
    plain = FRACTION.sub(r"\1\2/\3", text.removesuffix("."))
    if NUMBER.fullmatch(plain) and not plain.endswith("/0"):
        try:
            return Fraction(plain.replace(",", ""))
        except ZeroDivisionError:  # such as 1/00
            return plain
    return plain.casefold() if plain.isalpha() else plain


def mode_of(messages: list[Message]) -> str:
    """The mode of a chat that ends with an answer: direct, text, vision or mixed."""
    *before, last = messages[-1].content
    sketches = any(isinstance(part, Sketch) for message in messages for part in message.content)
    reasons = any(isinstance(part, Text) for part in before) or bool(last.text.partition(BOX)[0].strip())
    if sketches:
        return "mixed" if reasons else "vision"
    return "text" if before or (reasons and last_box(last.text) is not None) else "direct"
