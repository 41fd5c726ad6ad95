"""Grading by rule: finds the answer in a reply, reads it and compares it with the gold answer. No model is used.

spans.py says where an answer stands, letters.py, numbers.py and mathematics.py read it. A box is the strictest place: it
has to hold the answer and nothing else. An answer that cannot be read is wrong and counted as unparsed; it is never
guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from latent_reason.tasks import checkers
from latent_reason.tasks.blocks import Blocks
from latent_reason.tasks.checkers import boxed

from . import puzzles
from .items import EvalItem
from .letters import read_letter
from .mathematics import matches_mathematics, read_mathematics
from .numbers import find_numbers, is_number, matches_number, numbers_equal, parse_number, plain_number, read_number
from .option_names import OPTION_NOUN, Options
from .refusals import is_refusal
from .spans import AnswerSpan, answer_span, clean_reply, normalize, strip_markup, strip_thinking

__all__ = [
    "RULES",
    "AnswerSpan",
    "Judgment",
    "answer_span",
    "is_number",
    "judge",
    "judge_by_checker",
    "normalize",
    "numbers_equal",
    "parse_number",
]

SEPARATOR = re.compile(r"[,;、，\n/&+和]|\\text\{\s*and\s*\}|\band\b")
BARE_LETTER = re.compile(r"[(\[]([A-Za-z])[)\]]\.?|([A-Za-z])[.):]?")
ALL_CORRECT = re.compile(
    r"(?:both |options? )*(.{1,40}?) (?:are|is) (?:all |both )?(?:the )?(?:correct|right)\b.*", re.IGNORECASE
)
BRACKETS = re.compile(r"\\?\{([^{}]*?)\\?\}|\[([^\[\]]*)\]|\(([^()]*)\)")  # around a list
BOXES = re.compile(r"\\boxed\s*\{([^{}]*)\}")
YES_NO = re.compile(
    r"(yes|yep|yeah|yup|y|no|nope|nah|n|true|false|是的?|对的?|有的?|否|不是的?|不对|没有|对|错)"
    r"(?=\s*(?:[.,;:!。，—–(-]|$)|\s+(?:because|since|as|it|there|the|this|they)\b)(.*)",
    re.DOTALL | re.IGNORECASE,
)
OPINION = re.compile(
    r"(?:I (?:think|believe|guess|would say)|I['’]d say|in my opinion|well|my answer is)[,:]?\s+", re.IGNORECASE
)
#: a second answer behind the first; "no other dog" is none
SECOND_TRUTH = re.compile(r"\b(?:yes|or|no(?! (?:other|more|one|further|additional|second)\b))\b")
YES = ("yes", "yep", "yeah", "yup", "y", "true", "是", "是的", "对", "对的", "有", "有的")
CONCLUDED = re.compile(r"(?:so|therefore|thus|hence)\b[, ]*(?:the answer is )?(?=(?:yes|no)\b)", re.IGNORECASE)
PLAN_HEADING = re.compile(r"\b(?:plan|moves|path|route|actions?|steps|sequence)(?:\s+is\b\s*:?|\s*:)", re.IGNORECASE)
PLAN_FILLER = re.compile(
    r"(?m)^\s*\d+[.)]|[\[\](){}\"'.*]|\b(?:go|move|then|and|first|next|finally|step)\b", re.IGNORECASE
)
PLAN_CHECKERS = ("vsp", "mirage", "exact", "exact_strict", "progress")


class Judgment(NamedTuple):
    """The grade of a reply. ``parsed`` is the parsed answer, None if it cannot be parsed."""

    is_right: bool
    parsed: str | None


def judge(text: str, item: EvalItem) -> Judgment:
    """Whether a reply is right by the rule of the item."""
    if item.checker == "refusal":
        refused = is_refusal(text)
        return Judgment(refused, "refused" if refused else "answered")
    if item.checker not in RULES:
        return judge_by_checker(text, item, item.checker)
    read, matches = RULES[item.checker]
    parsed = read(text, item)
    return Judgment(parsed is not None and matches(parsed, item), parsed)


# -- rules of the procedural tasks and of puzzles ----------------------------------------------------------------------
def judge_by_checker(text: str, item: EvalItem, checker: str) -> Judgment:
    """Grades by a rule of the procedural tasks or of puzzles. These rules read boxes and the formats of their own
    benchmark, so an answer in another place is put into a box."""
    check = (
        Blocks(split="test").check
        if checker == "blocks"
        else getattr(puzzles if hasattr(puzzles, checker) else checkers, checker)
    )
    text = strip_thinking(text)
    result = check(text, item.meta)
    if not result.parsed and boxed(text) is None and (answer := read_answer(text, checker)):
        result = check(f"\\boxed{{{answer}}}", item.meta)
    parsed = ",".join(map(str, result.parsed)) if isinstance(result.parsed, list) else result.parsed
    return Judgment(result.ok, parsed or None)


def read_answer(text: str, checker: str) -> str | None:
    """The answer of a reply without a box: for plans the moves, else the answer span."""
    span = answer_span(text)
    if span is None:
        return None
    if checker in PLAN_CHECKERS:
        after_heading = PLAN_HEADING.split(clean_reply(text))[-1] if PLAN_HEADING.search(text) else ""
        return read_moves(after_heading) or read_moves(span.text)
    return span.text if span.rule in ("json", "tag", "output", "phrase", "reply") else None


def read_moves(text: str) -> str | None:
    """A plan such as ``Up, then right -> R`` as ``U,R,R``; None if other words stand in it."""
    pieces = re.split(r"[,;\s]+|->|→|⇒|=>|\\(?:right|to)arrow", PLAN_FILLER.sub(" ", text).strip())
    moves = [checkers.LETTER.get(piece.upper(), piece.upper()) for piece in pieces if piece]
    return ",".join("".join(moves)) if moves and all(set(move) <= set("UDLR") for move in moves) else None


# -- text --------------------------------------------------------------------------------------------------------------
def read_text(reply: str, item: EvalItem) -> str | None:
    span = answer_span(reply)
    return None if span is None or span.rule == "line" else strip_markup(span.text)


def matches_text(parsed: str, item: EvalItem) -> bool:
    """Whether texts are equal after normalization, or equal as numbers if both are numbers."""
    accepted = [item.answer, *item.meta.get("accepted", ())]
    return any(
        normalize(parsed) == normalize(gold)
        or ((number := parse_number(gold)) and not number.unit and numbers_equal(parsed, gold))
        for gold in accepted
    )


def read_yes_no(reply: str, item: EvalItem) -> str | None:
    """Yes or No from an answer that begins with it, from "so, yes", or from the first word of a reply."""
    span = answer_span(reply)
    if span is None:
        return None
    texts = [span.text]
    if span.rule in ("reply", "line"):
        sentences = re.split(r"(?<=[.!。])\s+|\n+", clean_reply(reply).strip())
        concluded = [sentence[match.end() :] for sentence in sentences if (match := CONCLUDED.match(sentence))]
        is_bare_line = span.rule == "line" and YES_NO.fullmatch(normalize(span.text))
        texts = concluded[-1:] or ([span.text] if is_bare_line else [clean_reply(reply).strip()])
    match = YES_NO.fullmatch(normalize(OPINION.sub("", texts[0], count=1) if OPINION.match(texts[0]) else texts[0]))
    is_question = re.match(r"[^.!。\n]*[?？]", texts[0]) or texts[0].rstrip().endswith(("?", "？"))
    if not match or is_question or SECOND_TRUTH.search(match[2]):
        return None
    return "Yes" if match[1].lower() in YES else "No"


def matches_choice(parsed: str, item: EvalItem) -> bool:
    return parsed.casefold() == item.answer.casefold()


# -- several answers ---------------------------------------------------------------------------------------------------
def read_letters(reply: str, item: EvalItem) -> str | None:
    """The options of a question with several right ones: ``A, C``, ``(A) and (C)`` or ``AC``, as ``AC``."""
    span = join_boxes(reply) or answer_span(reply)
    if span is None:
        return None
    text = clean_reply(reply) if span.rule == "line" else span.text
    text = strip_markup(text).strip("{}\\ 选。").removesuffix(".")
    if match := ALL_CORRECT.fullmatch(text):
        text = match[1]
    names = name_options(re.sub(rf"^{OPTION_NOUN}", "", re.sub(r"[\[\]]|(?<=\))(?=\()|'", " ", text)), item)
    if not names or not set(names) <= set(item.letters) or len(set(names)) < len(names):
        return None
    return "".join(sorted(names))


def name_options(text: str, item: EvalItem) -> list[str]:
    """The options that a list names by letters, by letters with their texts, or by their texts; [] if it has more."""
    if re.fullmatch(r"[A-Z](?:\s*[A-Z])*", text.strip()):
        return re.findall("[A-Z]", text)
    options, names = Options(item.letters, item.options), []
    for piece in filter(None, map(str.strip, re.split(SEPARATOR.pattern + r"|(?<=\))\s+(?=\()", text))):
        label, _, rest = piece.partition(".") if re.match(r"[A-Z]\. ", piece) else (piece, "", "")
        match = BARE_LETTER.fullmatch(label)
        if match and not rest:
            names.append((match[1] or match[2]).upper())
        elif name := options.name(piece):
            names.append(name)
        else:
            return []
    return names


def join_boxes(reply: str) -> AnswerSpan | None:
    """The boxes of a reply that stand side by side, as one span: ``\\boxed{A}, \\boxed{C}``."""
    boxes = list(BOXES.finditer(clean_reply(reply)))
    run = boxes[-1:]
    for box in reversed(boxes[:-1]):
        if not re.fullmatch(r"[\s$,;、]*(?:and)?[\s$]*", clean_reply(reply)[box.end() : run[0].start()]):
            break
        run.insert(0, box)
    return AnswerSpan(", ".join(box[1] for box in run), "box") if len(run) > 1 else None


def read_numbers(reply: str, item: EvalItem) -> str | None:
    """Several numbers in order: ``[1, 2.5]`` as ``1, 2.5``."""
    span = join_boxes(reply) or answer_span(reply)
    entries = split_numbers(span.text) if span and span.rule != "line" else []
    return ", ".join(entries) or None


def split_numbers(text: str) -> list[str]:
    """The numbers of a list, or else of a sentence; [] if one cannot be read. A comma before three digits is part of a
    number if the numbers are parted in another way: ``1,000, 2``."""
    text = text.strip(" .")
    if bracketed := BRACKETS.fullmatch(text):
        text = next(filter(None, bracketed.groups()), "")
    parting = r"[;、\n]|\band\b|和|,\s"
    pieces = re.split(rf"{parting}|,(?!\d{{3}}(?!\d))" if re.search(parting, text) else r",", text)
    pieces = [re.sub(r"^\s*\(\d\)\s*(?=\S)", "", piece) for piece in pieces]
    entries = [strip_markup(plain_number(piece)) for piece in pieces if piece.strip(" .$")]
    if not all(map(parse_number, entries)):
        entries = [re.sub(r"\s+and$", "", number) for number in find_numbers(text)]
    return entries if all(map(parse_number, entries)) and "?" not in text else []


def matches_numbers(parsed: str, item: EvalItem) -> bool:
    text, gold = parsed.split(", "), split_numbers(item.answer)
    return len(text) == len(gold) and all(numbers_equal(a, b) for a, b in zip(text, gold, strict=True))


def read_set(reply: str, item: EvalItem) -> str | None:
    """The members of a set, separated by commas, semicolons, line ends or ``and``."""
    span = answer_span(reply)
    if span is None:
        return None
    lines = [line for line in clean_reply(reply).splitlines() if line.strip()]
    is_list = span.rule == "line" and all(len(line.split()) == 1 for line in lines)
    if span.rule == "line" and not is_list:
        return None
    return _join_members("\n".join(lines) if is_list else span.text)


def _join_members(text: str) -> str | None:
    return (
        ", ".join(sorted({member for piece in SEPARATOR.split(text.strip("{}[]")) if (member := normalize(piece))}))
        or None
    )


def matches_set(parsed: str, item: EvalItem) -> bool:
    return parsed == _join_members(item.answer)


#: checker -> (reads the answer of a reply, compares it with the gold answer)
RULES: dict[str, tuple[Callable[[str, EvalItem], str | None], Callable[[str, EvalItem], bool]]] = {
    "letter": (read_letter, matches_choice),
    "letters": (read_letters, matches_choice),
    "text": (read_text, matches_text),
    "yes_no": (read_yes_no, matches_choice),
    "number": (read_number, matches_number),
    "numbers": (read_numbers, matches_numbers),
    "set": (read_set, matches_set),
    "math": (read_mathematics, matches_mathematics),
}
