"""Reads the number of a reply and compares numbers with their units.

An explicit answer has to be a number, with a unit at most. In sentences, the number of the last sentence counts if it
is the only one there or stands behind the last "=" or "is". Of several sentences with different numbers the last one
has to conclude: "so there are 5". Ranges, alternatives, negations and questions have no number.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

from .doubts import ATTRIBUTION, is_positive
from .number_words import NUMBER_WORDS, PARTS, SCALES, chinese_number, write_digits
from .spans import ANSWER_LEAD, EXPLICIT_RULES, AnswerSpan, answer_span, clean_reply, strip_markup

NUMBER_PREFIX = re.compile(
    r"(?:[A-Za-zΑ-Ωα-ω∠△\\' ]|_\{\w{1,9}\}|_\w){1,40}[=≈]\s*"  # x =, \theta =, S_{ABC} =, m\angle H =
    r"|about\s+|around\s+|roughly\s+|approximately\s+|(?:≈|~|=|\\approx|\\sim)\s*"
    r"|(?:USD|EUR|RMB|Rs\.?)\s*(?=\d)",
    re.IGNORECASE,
)
NUMBER = re.compile(
    r"(?P<sign>[-+−]?)\s*[$€£¥₹]?\s*(?:(?P<whole>\d{1,40})\s*(?=\\[dt]?frac|(?<=\s)\d{1,40}/\d))?"
    r"(?:\\[dt]?frac(?:\{(?P<a>[-+−]?\d{1,40}(?:\.\d{1,40})?)\}|\s*(?P<e>\d))(?:\{(?P<b>\d{1,40}(?:\.\d{1,40})?)\}|\s*(?P<f>\d))"
    r"|(?P<c>\d{1,40})\s*/\s*(?P<d>\d{1,40})|10\s*\^\s*\{?(?P<ten>[-+−]?\d{1,3})\}?"
    r"|(?P<plain>(?:\d{1,3}(?:,\d{3})+|\d{1,40})(?:\.\d{0,40})?|\.\d{1,40})"
    r"(?:(?:[eE]|\s*(?:\\times|\\cdot|[×*xX])\s*10\s*\^\s*\{?)(?P<power>[-+−]?\d{1,3})\}?)?)"
)
#: makes another number of one that it stands right after
FORMULA = re.compile(
    r"\s*(?:\\(?:sqrt|pi|times|cdot|pm|ln|log|sin|cos|tan|mod|[dt]?frac)\b|[π√×±]|mod)|\s*[*·/]\s*\d|\.\.+\d|[_₀-₉⁰¹²³⁴-⁹⁻!+]"
    r"|\\(?!%|circ\b|degree\b|[,;: ()\[\]]|text|mathrm)|\^(?!\{?\\circ)|[abeiknrtxyz](?![A-Za-z])|[,.:/]\d"
    r"|(?:st|nd|rd|th|ish)\b|\s*[万亿百]|千(?![克米瓦卡])"
)
#: no unit, but words that make another number of one, or that take it back
NO_UNIT = re.compile(
    rf"[-,/:–<>≤≥=?？+万亿百十]|千(?![克米瓦卡])|(?:or|to|and|minus|plus|times|factorial|squared|cubed|tens|quarters?)\b|或"
    rf"|(?:{'|'.join([*PARTS, *SCALES, *NUMBER_WORDS])})s?\b|.*[?？]|.*\bnot?\b|.*n['’]t\b",
    re.IGNORECASE | re.DOTALL,
)
#: thousands and millions, if the gold answer does not have them as its unit
SCALE_SIGNS = ("k", "K", "M", "m.", "mn", "B", "bn", "T")
UNIT_START = re.compile(r"\s|\\?%|°|\^?\{?\\(?:circ|degree)|(?:[cmk]?m|[mk]?g|[mk]?s|ml|L)\b")
#: names of units -> sign, without the plural s
UNITS = {
    **dict.fromkeys(("^circ", "circ", "degree", "deg", "^°"), "°"),
    **dict.fromkeys(("percent", "percentage"), "%"),
    **dict.fromkeys(("gram", "gramme"), "g"),
    **dict.fromkeys(("kilogram", "kilo"), "kg"),
    **dict.fromkeys(("meter", "metre"), "m"),
    **dict.fromkeys(("centimeter", "centimetre", "厘米"), "cm"),
    **dict.fromkeys(("millimeter", "millimetre"), "mm"),
    **dict.fromkeys(("kilometer", "kilometre"), "km"),
    **dict.fromkeys(("liter", "litre"), "l"),
    **dict.fromkeys(("milliliter", "millilitre"), "ml"),
    **dict.fromkeys(("hour", "hr"), "h"),
    **dict.fromkeys(("minute",), "min"),
    **dict.fromkeys(("second", "sec"), ""),  # as "s" without its s
    **dict.fromkeys(("dollar", "usd"), "$"),
    **dict.fromkeys(("inche", "inch"), "in"),
    **dict.fromkeys(("feet", "foot"), "ft"),
}
SENTENCE_END = re.compile(r"(?<!\b[A-Z])[.!?](?:[\"')*]*\s+|$)|[。！？\n]+")
CONCLUSION = re.compile(
    r"(?:\W*(?:so|therefore|thus|hence|overall|finally|altogether|in total|in all|in conclusion|the (?:total|result|sum|final)"
    r"|(?:wait|no|hmm|sorry|correction|actually)\W+(?:.*\W)?(?:it is|it['’]s|actually|should be|must be|there are)\b"
    r"|所以|因此|一共|共))",
    re.IGNORECASE,
)
DOUBT = re.compile(
    r"\b(?:either|between (?=[$\d])|could|might|may|maybe|perhaps|at least|at most|(?:more|less|fewer|greater|smaller) than|not"
    r"|never|cannot|unclear|wrong|incorrect|doubt|disagree|deny|except|rather than|instead of|(?:any|every|no)thing but"
    r"|all but)\b|n['’]t\b|\d\s*(?:[-–~]|to)\s*\d|可能|不"
    rf"|\d\s*[<>≤≥≠]|(?:[<>≤≥≠]|!=|\\(?:[lg]eq?|[lg]t|neq?)\b|\b(?:over|under|above|below|up to|as many as|(?:minimum|maximum) of|nearly|almost))\s*[$\\]*(?:\d|(?:{'|'.join(NUMBER_WORDS)})\b)",
    re.IGNORECASE,
)
#: a condition without what follows from it
UNFULFILLED = re.compile(
    r"\b(?:if|unless|whether)\b(?!.*\b(?:so|therefore|thus|hence|then|we (?:get|have))\b)", re.IGNORECASE
)
#: a number that names a place and counts nothing
PLACE = re.compile(
    r"\b(?:figure|fig\.|image|picture|photo|step|option|question|row|column|line|page|table|part|case|example|frame"
    r"|day|level)s?\s*$",
    re.IGNORECASE,
)
TOKEN = re.compile(
    r"(?<![A-Za-z0-9.,:/^_{}])(?:[-−](?=[$\d.]))?\\?[$€£¥]?(?:\\[dt]?frac\{-?\d+\}\{\d+\}|(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:/\d+)?(?![\d/:]))"
    rf"|\b(?:{'|'.join(NUMBER_WORDS)})\b",
    re.IGNORECASE,
)
#: makes another number of one that it stands right before
OPERATOR = re.compile(
    r"(?:\b(?:minus|negative|plus|times|root of|log|ln|sin|cos|tan|mod)|\\(?:pm|sqrt|ln|log|sin|cos|tan)|[√π^±|])\s*$|[-−]$",
    re.IGNORECASE,
)
REVISED = re.compile(
    r"\b(?:wait|actually|hmm|correction|on second thought|sorry|i mean)\b|[.!?;,…]\s*no\b\s*[,.:–—-]", re.IGNORECASE
)
NONE_THERE = re.compile(
    r"there (?:are|were) no (?!(?:\w+ ){0,2}(?:options?|answers?|numbers?|details|labels?|clues?|images?|pictures?|data|units|signs"
    r"|measurements|values|questions?|marks|markings|ways?|reasons?)\b)(?:\w+ ){0,2}\w+s"
    r"(?: (?:in|on|visible|shown|present|at|here|near)\b[^.,;]*)?[.!]?",
    re.IGNORECASE,
)
#: the last part of a sentence, which states its number
STATED = re.compile(r"[=≈]|\b(?:is|are|was|equals?)\b|(?<=[等是])|[,;] (?:so|therefore|thus|hence)\b")
ASIDE = re.compile(r"(?<=\d)\W+(?:where|when|with|if|since|because|for)\b.*", re.IGNORECASE | re.DOTALL)
UNIT = re.compile(
    r"\$?\\?\s*(?:%|°[CF]?|\^\\circ|(?!in (?:total|all|the|this|each)\b)[A-Za-z]+(?:/[a-z]+)?(?=[\s.,;]|$))"
)
ONE = re.compile(r"\b(?:is|are|was|only|just|exactly|shows?|has|have|see|count|contains?)\s+(?:only |just |exactly )?$")


class ParsedNumber(NamedTuple):
    """A number, its decimals as written (None for a fraction), its unit, and the text after it."""

    number: Fraction
    decimals: int | None
    unit: str
    rest: str


def parse_number(text: str) -> ParsedNumber | None:
    """The number in a text such as ``1,200 cm``, ``-3/4``, ``$x = 2.5$`` or ``three``. None if the text has no number or
    several."""
    text = write_digits(plain_number(text))
    text = chinese_number(text) or text
    first, _, rest = text.partition(" ")
    if first.casefold() in NUMBER_WORDS:
        text = f"{NUMBER_WORDS[first.casefold()]} {rest}"
    match = NUMBER.match(text)
    if not match or FORMULA.match(text, match.end()):
        return None
    unit = re.sub(r"\^?\{?[23²³]\}?$", "^", text[match.end() :].strip(" .()\\。"))
    if re.search(r"\d", unit) or NO_UNIT.match(unit):
        return None
    value = number_of(match)
    return value and ParsedNumber(*value, unit, text[match.end() :])


def plain_number(text: str) -> str:
    """A text without what may stand around a number: spacing commands, braces, outer brackets, ``x =``, "about"."""
    text = re.sub(r"\{,\}", ",", text.replace("\\$", "$").replace("\\!", ""))
    text = re.sub(r"\\[,;: ]|~(?=\D)", " ", re.sub(r"(?<=\d)\\[, ](?=\d{3}(?!\d))", "", text))
    text = re.sub(r"\\(?:left|right)(?=[()\[\]])", "", text)
    text = re.sub(r"(?<=10)[⁻⁰¹²³⁴-⁹]+", lambda sign: "^" + unicodedata.normalize("NFKC", sign[0]), text)
    text = re.sub(r"[¼½¾⅐-⅞]", lambda sign: " " + unicodedata.normalize("NFKC", sign[0]).replace("⁄", "/"), text)
    text = strip_markup(text)
    while (bare := re.sub(r"^\\?[({]\s*([^(){}]*?)\s*\\?[)}]$", r"\1", text).strip()) != text or (
        prefix := NUMBER_PREFIX.match(text)
    ):
        text = bare if bare != text else text[prefix.end() :].strip()
    return text


def number_of(match: re.Match) -> tuple[Fraction, int | None] | None:
    """The value of a matched number and its decimals; None if it divides by 0."""
    minus = -1 if match["sign"] in ("-", "−") else 1
    numerator, denominator = match["a"] or match["e"] or match["c"], match["b"] or match["f"] or match["d"]
    if numerator is not None:
        if Fraction(denominator) == 0:
            return None
        return minus * (int(match["whole"] or 0) + Fraction(numerator.replace("−", "-")) / Fraction(denominator)), None
    if match["ten"] is not None:
        return minus * Fraction(10) ** int(match["ten"].replace("−", "-")), 0
    digits = match["plain"].replace(",", "")
    power = int((match["power"] or "0").replace("−", "-"))
    number = Fraction("0" + digits if digits.startswith(".") else digits.rstrip(".")) * Fraction(10) ** power
    return minus * number, max(0, len(digits.partition(".")[2]) - power)


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
    if first.unit in SCALE_SIGNS and first.unit != expected_unit:
        return False
    error = abs(first.number - second.number)
    if tolerance:
        return error <= Fraction(str(tolerance))
    decimals = second.decimals if precision is None else precision
    if decimals is None:
        decimals = first.decimals if (first.decimals or 0) >= 2 else None
    return error == 0 or (bool(decimals) and error <= Fraction(1, 2 * 10 ** min(decimals, 40)))


def same_number(first: str, second: str) -> bool:
    """Whether two texts are numbers, with a unit at most, and exactly equal. One of the units may be missing."""
    if not (is_number(first) and is_number(second)):
        return False
    one, other = parse_number(first), parse_number(second)
    units = {_normalize_unit(number.unit) for number in (one, other) if number.unit}
    is_scaled = one.unit != other.unit and {one.unit, other.unit} & set(SCALE_SIGNS)
    return one.number == other.number and len(units) <= 1 and not is_scaled


def _normalize_unit(text: str) -> str:
    plain = re.sub(r"\s|\\|[{}$]", "", text.casefold()).rstrip("s.") if text.strip() != "$" else text.strip()
    return UNITS.get(plain, plain)


# -- replies -----------------------------------------------------------------------------------------------------------
def read_number(reply: str, item) -> str | None:
    """The number of a reply as text, with its unit; None if there is none or if there are several."""
    span = answer_span(reply)
    if span is None:
        return None
    if span.rule == "phrase" and (revised := REVISED.search(span.text)):
        return read_number_in_prose(span.text[revised.start() :])
    text = clean_reply(reply)
    if span.rule == "phrase" and not is_positive(text, text.rfind(span.text)):
        return None
    for text in candidates(span):
        if parse_number(text):
            return strip_markup(text)
    if span.rule == "box":
        return None
    return read_number_in_prose(
        clean_reply(reply) if span.rule in ("reply", "line") else span.text, is_whole=span.rule != "phrase"
    )


def candidates(span: AnswerSpan) -> list[str]:
    """The texts of a span that may be a number as they stand."""
    text = span.text
    if span.rule in EXPLICIT_RULES:
        return [ANSWER_LEAD.sub("", text, count=1)]
    if span.rule == "phrase":
        return [text, re.split(r"\.\s+(?=[A-Z])|,?\s+\b(?:because|since|as)\b|[。;]", text, maxsplit=1)[0]]
    number = parse_number(text)
    return [text] if number and len(number.unit.split()) <= 1 else []


def read_number_in_prose(text: str, is_whole: bool = True) -> str | None:
    """The number that the last sentence with a number states, see the docstring of the module."""
    if NONE_THERE.fullmatch(text.strip()):
        return "0"
    text = write_digits(re.sub(r"^\s*\d+[.)]\s+", "", text, flags=re.MULTILINE))
    sentences = [part for part in SENTENCE_END.split(text) if part and part.strip()]
    numbered = [(part, found) for part in sentences if (found := find_numbers(part))]
    if not numbered:
        return None
    sentence, found = numbered[-1]
    after = text[text.rfind(sentence) + len(sentence) :]
    is_doubted = any(pattern.search(sentence) for pattern in (DOUBT, ATTRIBUTION, UNFULFILLED))
    if is_doubted or after[:1] in ("?", "？") or REVISED.search(after):
        return None
    if after[:1] == "!" and sentence[-1].isdigit():  # a factorial, or not
        return None
    distinct = {parse_number(token).number for _, tokens in numbered for token in tokens if parse_number(token)}
    results = {tokens[-1].strip() for part, tokens in numbered[:-1] if re.search(r"[=≈]", part)}
    is_stated = CONCLUSION.match(sentence) or len(numbered) == 1 or len(distinct) == 1 or found[-1] in results
    if not is_stated and is_whole:
        return None
    if len(found) > 1:
        if re.search(r"\bor\b|或", sentence):
            return None
        found = find_numbers(STATED.split(ASIDE.sub("", sentence))[-1])
    return found[0] if len(found) == 1 and parse_number(found[0]) else None


def find_numbers(sentence: str) -> list[str]:
    """The numbers of a sentence, each with the word behind it. "One" counts only as a quantity. A part of a formula is
    no number and stands there as ``2!``, which is not read."""
    found = []
    for match in TOKEN.finditer(sentence):
        before = sentence[: match.start()]
        is_pronoun = match[0].lower() == "one" and not ONE.search(before.lower())
        if PLACE.search(before) or is_pronoun:
            continue
        after = sentence[match.end() :]
        if OPERATOR.search(before) or FORMULA.match(after):
            found.append(f"{match[0]}!")
            continue
        unit = UNIT.match(after)
        found.append(match[0].lstrip("\\") + (unit[0].replace("$", "") if unit else ""))
    return found


def matches_number(parsed: str, item) -> bool:
    options = {name: item.meta[name] for name in ("precision", "tolerance", "unit") if item.meta.get(name) is not None}
    return numbers_equal(parsed, item.answer, **options)
