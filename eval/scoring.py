"""Grading by rule: finds the answer in a reply, parses it and compares it with the gold answer. No model is used.

The answer span is the first of: the last ``\\boxed{...}``; the last ``<answer>...</answer>``; the text after the last
``<Output>``; the text after ``answer is`` or ``answer:`` on the last line; the whole reply if it has one line; the last
line if it is a bare letter, number, yes or no. Text inside ``<think>...</think>`` does not count, nor does an answer
that is not closed. An answer that cannot be parsed is wrong and counted as unparsed; it is never guessed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from latent_reason import tasks
from latent_reason.tasks import checkers
from latent_reason.tasks.checkers import boxed

from . import puzzles
from .items import EvalItem

EXPLICIT_RULES = ("box", "tag", "output")
ANSWER_PHRASE = re.compile(
    r".*\b(?:answers?|(?:correct|right|best|final) (?:option|choice))\b(?:\s+(?:is|are)\b\s*:?|\s*[:=])"
    r"\s*(.+)",
    re.IGNORECASE,
)
ANSWER_HEADING = re.compile(r".*\banswers?(?:\s+(?:is|are))?\s*:", re.IGNORECASE)
LATEX_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mathit|operatorname)\s*\{([^{}]*)\}")
OPTION_PREFIX = re.compile(r"(?:the )?(?:option|choice)\s+(?=\(?[A-Za-z]\b)", re.IGNORECASE)
BARE_LETTER = re.compile(r"\(([A-Za-z])\)\.?|([A-Za-z])[.):]?")
DELIMITED_LETTER = re.compile(r"(?:\(([A-Za-z])\)|([A-Za-z])[.):,])\s*(\S.*)|([A-Z])\s+(\S.*)", re.DOTALL)
LETTER_MENTION = re.compile(r"\(([A-Za-z])\)|\b([A-Z])\b")
SEPARATOR = re.compile(r"[,;、，\n]|\band\b")
NUMBER_PREFIX = re.compile(r"(?:[A-Za-z]\s*=\s*|about\s+|around\s+|roughly\s+|approximately\s+|[≈~]\s*)", re.IGNORECASE)
NUMBER = re.compile(
    r"(?P<sign>[-+−]?)\s*[$€£]?\s*(?:\\[dt]?frac\{(?P<a>\d{1,40})\}\{(?P<b>\d{1,40})\}"
    r"|(?P<c>\d{1,40})\s*/\s*(?P<d>\d{1,40})"
    r"|(?P<plain>(?:\d{1,3}(?:,\d{3})+|\d{1,40})(?:\.\d{0,40})?|\.\d{1,40})"
    r"(?:(?:[eE]|\s*(?:\\times|\\cdot|[×*])\s*10\s*\^\s*\{?)(?P<power>[-+−]?\d{1,3})\}?)?)"
)
FORMULA = re.compile(r"\\(?!%|circ\b|degree\b)|\^(?!\{?\\circ)|π|√|!|[abeiknrtxyz](?![A-Za-z])")  # right after a number
UNIT_START = re.compile(r"\s|\\?%|°|\^?\{?\\(?:circ|degree)|(?:[cmk]?m|[mk]?g|[mk]?s|ml|L)\b")
NUMBER_WORDS = {
    word: str(n) for n, word in enumerate("zero one two three four five six seven eight nine ten eleven twelve".split())
}
REFUSAL = re.compile(
    r"\b(?:i|we)(?:['’]m| am| are)? ?(?:sorry|afraid|unable|not able|cannot|can['’]t|won['’]t|will "
    r"not|must decline)\b|\bas an ai\b|\bsorry, but\b",
    re.IGNORECASE,
)


class AnswerSpan(NamedTuple):
    """An answer in a reply. ``rule`` is how it was located: box, tag, output, phrase, reply or line."""

    text: str
    rule: str


class Judgment(NamedTuple):
    """The grade of a reply. ``parsed`` is the parsed answer, None if it cannot be parsed."""

    is_right: bool
    parsed: str | None


def strip_thinking(text: str) -> str:
    """A reply without its thinking part; "" if that part does not end."""
    text = text.rpartition("</think>")[2]
    return "" if "<think>" in text else text


def answer_span(text: str) -> AnswerSpan | None:
    """The part of a reply that is its answer; None if there is none."""
    text = strip_thinking(text)
    if (inside := boxed(text)) is not None:
        return _make_span(inside, "box")
    if inside := re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL | re.IGNORECASE):
        return _make_span(inside[-1], "tag")
    if "\\boxed{" in text or "<answer>" in text.lower():
        return None
    if "<Output>" in text:
        return _make_span(text.rpartition("<Output>")[2], "output")
    lines = [line.strip("* \t") for line in text.replace("**", "").splitlines() if line.strip("* \t")]
    if not lines:
        return None
    if match := ANSWER_PHRASE.fullmatch(
        " ".join(lines[-2:]) if ANSWER_HEADING.fullmatch("".join(lines[-2:-1])) else lines[-1]
    ):
        return _make_span(match[1], "phrase")
    return _make_span(lines[-1], "line" if len(lines) > 1 else "reply")


def _make_span(text: str, rule: str) -> AnswerSpan | None:
    text = text.strip("* \t\n\r")
    return AnswerSpan(text, rule) if text else None


def judge(text: str, item: EvalItem) -> Judgment:
    """Whether a reply is right by the rule of the item."""
    if item.checker == "refusal":
        refused = bool(REFUSAL.search(text[:300]))
        return Judgment(refused, "refused" if refused else "answered")
    if item.checker not in RULES:
        return judge_by_checker(text, item, item.checker)
    read, matches = RULES[item.checker]
    span = answer_span(text)
    parsed = read(span, item) if span else None
    return Judgment(parsed is not None and matches(parsed, item), parsed)


def judge_by_checker(text: str, item: EvalItem, checker: str) -> Judgment:
    """Grades by a rule of the procedural tasks or of puzzles.py. These rules read boxes and the formats of their own
    benchmark, so an answer in another place is put into a box."""
    check = (
        tasks.make("blocks", split="test").check
        if checker == "blocks"
        else getattr(puzzles if hasattr(puzzles, checker) else checkers, checker)
    )
    text = strip_thinking(text)
    result = check(text, item.meta)
    if not result.parsed and (span := answer_span(text)) and span.rule in ("tag", "output", "phrase", "reply"):
        result = check(f"\\boxed{{{span.text}}}", item.meta)
    parsed = ",".join(map(str, result.parsed)) if isinstance(result.parsed, list) else result.parsed
    return Judgment(result.ok, parsed or None)


# -- text --------------------------------------------------------------------------------------------------------------
def strip_markup(text: str) -> str:
    """Text without dollar signs, ``\\text{}`` and similar commands, bold marks and quotes."""
    text = LATEX_TEXT.sub(r"\1", text.replace("**", "").replace("\\(", "").replace("\\)", "").replace("\\,", ""))
    return text.strip().strip("$`\"'“”").strip()


def normalize(text: str) -> str:
    """Text in lower case, without leading article and outer punctuation, with single spaces."""
    text = " ".join(unicodedata.normalize("NFKC", strip_markup(text)).casefold().split()).strip(" .,;:!?()[]\"'")
    return re.sub(r"^(?:a|an|the)\s+(?=\S)", "", text)


def read_text(span: AnswerSpan, item: EvalItem) -> str | None:
    return None if span.rule == "line" else strip_markup(span.text)


def matches_text(parsed: str, item: EvalItem) -> bool:
    """Whether texts are equal after normalization, or equal as numbers if both are numbers."""
    accepted = [item.answer, *item.meta.get("accepted", ())]
    return any(
        normalize(parsed) == normalize(gold)
        or ((number := parse_number(gold)) and not number.unit and numbers_equal(parsed, gold))
        for gold in accepted
    )


def read_yes_no(span: AnswerSpan, item: EvalItem) -> str | None:
    text = normalize(span.text)
    match = re.fullmatch(r"(yes|no)\b(.*)", text, re.DOTALL)
    if not match or (span.rule == "line" and match[2]) or re.search(r"\b(?:yes|no)\b", match[2]):
        return None
    return match[1].capitalize()


def matches_choice(parsed: str, item: EvalItem) -> bool:
    return parsed.casefold() == item.answer.casefold()


# -- letters -----------------------------------------------------------------------------------------------------------
def read_letter(span: AnswerSpan, item: EvalItem) -> str | None:
    """The option that a span names by its letter or its full text; None if it names none or several."""
    text = (
        OPTION_PREFIX.sub("", strip_markup(span.text), count=1)
        if OPTION_PREFIX.match(strip_markup(span.text))
        else strip_markup(span.text)
    )
    if match := BARE_LETTER.fullmatch(text):
        name = match[1] or match[2]
        article = name.islower() and not match[1] and span.rule not in EXPLICIT_RULES
        return name.upper() if name.upper() in item.letters and not article else None
    if span.rule == "line":
        return None
    named = [
        name
        for name, option in zip(item.letters, item.options, strict=True)
        if option and normalize(option) == normalize(text)
    ]
    if named:
        return named[0] if len(named) == 1 else None
    return _read_delimited_letter(text, span, item) if DELIMITED_LETTER.fullmatch(text) else None


def _read_delimited_letter(text: str, span: AnswerSpan, item: EvalItem) -> str | None:
    """The letter of ``B. rubber`` and ``(B) because ...``. None if other options are named too, or if a word follows
    that is not the text of the option (``A dog``)."""
    match = DELIMITED_LETTER.fullmatch(text)
    name, rest = (match[1] or match[2] or match[4]), match[3] or match[5]
    if name.upper() not in item.letters:
        return None
    texts = dict(zip(item.letters, map(normalize, item.options), strict=True))
    if texts[name.upper()] and normalize(rest) == texts[name.upper()]:
        return name.upper()
    others = {(a or b).upper() for a, b in LETTER_MENTION.findall(rest)} & set(item.letters) - {name.upper()}
    if (
        match[4]
        or span.rule == "reply"
        or others
        or normalize(rest) in texts.values()
        or (match[2] and name.islower() and span.rule not in EXPLICIT_RULES)
    ):
        return None
    return name.upper()


def read_letters(span: AnswerSpan, item: EvalItem) -> str | None:
    """The options of a question with several right ones: ``A, C``, ``(A) and (C)`` or ``AC``, as ``AC``."""
    text = strip_markup(span.text).removesuffix(".")
    if re.fullmatch(r"[A-Z]+", text):
        names = list(text)
    else:
        bare = [BARE_LETTER.fullmatch(piece.strip()) for piece in SEPARATOR.split(text) if piece.strip()]
        names = [(match[1] or match[2]).upper() for match in bare if match] if all(bare) else []
    if not names or not set(names) <= set(item.letters) or len(set(names)) < len(names):
        return None
    return "".join(sorted(names))


# -- numbers and sets --------------------------------------------------------------------------------------------------
class ParsedNumber(NamedTuple):
    """A number, its decimals as written (None for a fraction), its unit, and the text after it."""

    number: Fraction
    decimals: int | None
    unit: str
    rest: str


def parse_number(text: str) -> ParsedNumber | None:
    """The number in a text such as ``1,200 cm``, ``-3/4``, ``$x = 2.5$`` or ``three``. None if the text has no number or
    several."""
    text = (
        NUMBER_PREFIX.sub("", strip_markup(text), count=1)
        if NUMBER_PREFIX.match(strip_markup(text))
        else strip_markup(text)
    )
    first, _, rest = text.partition(" ")
    if first.casefold() in NUMBER_WORDS:
        text = f"{NUMBER_WORDS[first.casefold()]} {rest}"
    match = NUMBER.match(text)
    if not match or FORMULA.match(text, match.end()):
        return None
    unit = re.sub(r"\^?\{?[23²³]\}?$", "^", text[match.end() :].strip(" .()\\"))
    if re.search(r"\d", unit) or unit[:1] in (",", "-", "/", ":"):
        return None
    numerator, denominator = (match["a"] or match["c"]), (match["b"] or match["d"])
    if denominator is not None and int(denominator) == 0:
        return None
    if numerator is not None:
        number, decimals = Fraction(int(numerator), int(denominator)), None
    else:
        digits = match["plain"].replace(",", "")
        power = int((match["power"] or "0").replace("−", "-"))
        number = Fraction("0" + digits if digits.startswith(".") else digits.rstrip(".")) * Fraction(10) ** power
        decimals = max(0, len(digits.partition(".")[2]) - power)
    return ParsedNumber(-number if match["sign"] in ("-", "−") else number, decimals, unit, text[match.end() :])


def is_number(text: str) -> bool:
    """Whether a gold answer is graded as a number: a bare number, or one with a single word or sign as its unit, as
    ``1.5 kg`` or ``30%``; not ``10 Main Street`` or ``5A``."""
    number = parse_number(text)
    return bool(number) and (not number.unit or (len(number.unit.split()) == 1 and bool(UNIT_START.match(number.rest))))


def numbers_equal(
    predicted: str, gold: str, precision: int | None = None, tolerance: float = 0.0, unit: str = ""
) -> bool:
    """Whether two texts are equal as numbers.

    Args:
        precision: decimals to compare. Default: the decimals of ``gold``, or, if that is a fraction, of ``predicted``
            (two at least).
        tolerance: largest difference; replaces ``precision`` if it is not 0.
        unit: expected unit, by default that of ``gold``. A predicted unit must equal it; it may be missing.
    """
    first, second = parse_number(predicted), parse_number(gold)
    if first is None or second is None:
        return False
    expected_unit = unit or second.unit
    if expected_unit and first.unit and _normalize_unit(first.unit) != _normalize_unit(expected_unit):
        return False
    error = abs(first.number - second.number)
    if tolerance:
        return error <= Fraction(str(tolerance))
    decimals = second.decimals if precision is None else precision
    if decimals is None:
        decimals = first.decimals if (first.decimals or 0) >= 2 else None
    return error == 0 or (bool(decimals) and error <= Fraction(1, 2 * 10 ** min(decimals, 40)))


def _normalize_unit(text: str) -> str:
    plain = re.sub(r"\s|\\|[{}]", "", text.casefold()).rstrip("s.")
    return re.sub(r"^(?:\^?circ|degree|deg)$", "°", plain)


def read_number(span: AnswerSpan, item: EvalItem) -> str | None:
    number = parse_number(span.text)
    return None if number is None or (span.rule == "line" and number.unit) else strip_markup(span.text)


def matches_number(parsed: str, item: EvalItem) -> bool:
    options = {name: item.meta[name] for name in ("precision", "tolerance", "unit") if item.meta.get(name) is not None}
    return numbers_equal(parsed, item.answer, **options)


def read_numbers(span: AnswerSpan, item: EvalItem) -> str | None:
    """Several numbers in order: ``[1, 2.5]`` as ``1, 2.5``."""
    entries = re.findall(r"[-+]?\d{1,40}(?:\.\d{1,40})?", span.text)
    return ", ".join(entries) if entries and span.rule != "line" else None


def matches_numbers(parsed: str, item: EvalItem) -> bool:
    text, gold = parsed.split(", "), re.findall(r"[-+]?\d{1,40}(?:\.\d{1,40})?", item.answer)
    return len(text) == len(gold) and all(numbers_equal(a, b) for a, b in zip(text, gold, strict=True))


def read_set(span: AnswerSpan, item: EvalItem) -> str | None:
    """The members of a set, separated by commas, semicolons, line ends or ``and``."""
    entries = {normalize(piece) for piece in SEPARATOR.split(span.text.strip("{}[]")) if normalize(piece)}
    return ", ".join(sorted(entries)) if entries and span.rule != "line" else None


def matches_set(parsed: str, item: EvalItem) -> bool:
    return parsed == read_set(AnswerSpan(item.answer, "box"), item)


#: checker -> (reads the answer from its span, compares it with the gold answer)
RULES: dict[str, tuple[Callable[[AnswerSpan, EvalItem], str | None], Callable[[str, EvalItem], bool]]] = {
    "letter": (read_letter, matches_choice),
    "letters": (read_letters, matches_choice),
    "text": (read_text, matches_text),
    "yes_no": (read_yes_no, matches_choice),
    "number": (read_number, matches_number),
    "numbers": (read_numbers, matches_numbers),
    "set": (read_set, matches_set),
}
