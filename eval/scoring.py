"""Answers by rule: where in a reply the answer stands, what it says, whether that is right. No model judges anything.

The answer span is the first of: the last ``\\boxed{...}``; the last ``<answer>...</answer>``; what follows the last
``<Output>``; what follows ``answer is`` or ``answer:`` on the last line; the whole reply, where it is one line; the
last line, where it is a bare letter, number, yes or no. What stands in ``<think>...</think>`` is no answer, nor is one
that was begun and not ended. What cannot be read is wrong and counted, never guessed.
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

FORMAL = ("box", "tag", "output")
SAID = re.compile(
    r".*\b(?:answers?|(?:correct|right|best|final) (?:option|choice))\b(?:\s+(?:is|are)\b\s*:?|\s*[:=])"
    r"\s*(.+)",
    re.IGNORECASE,
)
ANNOUNCED = re.compile(r".*\banswers?(?:\s+(?:is|are))?\s*:", re.IGNORECASE)
WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mathit|operatorname)\s*\{([^{}]*)\}")
NAMED = re.compile(r"(?:the )?(?:option|choice)\s+(?=\(?[A-Za-z]\b)", re.IGNORECASE)
BARE = re.compile(r"\(([A-Za-z])\)\.?|([A-Za-z])[.):]?")
DELIMITED = re.compile(r"(?:\(([A-Za-z])\)|([A-Za-z])[.):,])\s*(\S.*)|([A-Z])\s+(\S.*)", re.DOTALL)
MENTIONED = re.compile(r"\(([A-Za-z])\)|\b([A-Z])\b")
PARTING = re.compile(r"[,;、，\n]|\band\b")
LEADING = re.compile(r"(?:[A-Za-z]\s*=\s*|about\s+|around\s+|roughly\s+|approximately\s+|[≈~]\s*)", re.IGNORECASE)
NUMBER = re.compile(
    r"(?P<sign>[-+−]?)\s*[$€£]?\s*(?:\\[dt]?frac\{(?P<a>\d{1,40})\}\{(?P<b>\d{1,40})\}"
    r"|(?P<c>\d{1,40})\s*/\s*(?P<d>\d{1,40})"
    r"|(?P<plain>(?:\d{1,3}(?:,\d{3})+|\d{1,40})(?:\.\d{0,40})?|\.\d{1,40})"
    r"(?:(?:[eE]|\s*(?:\\times|\\cdot|[×*])\s*10\s*\^\s*\{?)(?P<power>[-+−]?\d{1,3})\}?)?)"
)
FORMULA = re.compile(r"\\(?!%|circ\b|degree\b)|\^(?!\{?\\circ)|π|√|!|[abeiknrtxyz](?![A-Za-z])")  # glued to a number
GLUED = re.compile(r"\s|\\?%|°|\^?\{?\\(?:circ|degree)|(?:[cmk]?m|[mk]?g|[mk]?s|ml|L)\b")
WORDS = {
    word: str(n) for n, word in enumerate("zero one two three four five six seven eight nine ten eleven twelve".split())
}
REFUSED = re.compile(
    r"\b(?:i|we)(?:['’]m| am| are)? ?(?:sorry|afraid|unable|not able|cannot|can['’]t|won['’]t|will "
    r"not|must decline)\b|\bas an ai\b|\bsorry, but\b",
    re.IGNORECASE,
)


class Span(NamedTuple):
    """``rule`` says where the answer was found: box, tag, output, said, reply or line."""

    text: str
    rule: str


class Judged(NamedTuple):
    """``parsed`` is what was read as the answer, None where nothing could be."""

    right: bool
    parsed: str | None


def spoken(text: str) -> str:
    """A reply without its thoughts; nothing where they do not end."""
    text = text.rpartition("</think>")[2]
    return "" if "<think>" in text else text


def answer_span(text: str) -> Span | None:
    """The part of a reply that is its answer; None where there is none."""
    text = spoken(text)
    if (inside := boxed(text)) is not None:
        return _filled(inside, "box")
    if inside := re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL | re.IGNORECASE):
        return _filled(inside[-1], "tag")
    if "\\boxed{" in text or "<answer>" in text.lower():
        return None
    if "<Output>" in text:
        return _filled(text.rpartition("<Output>")[2], "output")
    lines = [line.strip("* \t") for line in text.replace("**", "").splitlines() if line.strip("* \t")]
    if not lines:
        return None
    if found := SAID.fullmatch(" ".join(lines[-2:]) if ANNOUNCED.fullmatch("".join(lines[-2:-1])) else lines[-1]):
        return _filled(found[1], "said")
    return _filled(lines[-1], "line" if len(lines) > 1 else "reply")


def _filled(text: str, rule: str) -> Span | None:
    text = text.strip("* \t\n\r")
    return Span(text, rule) if text else None


def judge(text: str, item: EvalItem) -> Judged:
    """Whether a reply is right by the rule that the item names."""
    if item.checker == "refusal":
        refused = bool(REFUSED.search(text[:300]))
        return Judged(refused, "refused" if refused else "answered")
    if item.checker not in RULES:
        return by_checker(text, item, item.checker)
    read, same = RULES[item.checker]
    span = answer_span(text)
    parsed = read(span, item) if span else None
    return Judged(parsed is not None and same(parsed, item), parsed)


def by_checker(text: str, item: EvalItem, checker: str) -> Judged:
    """A rule of the procedural tasks or of puzzles.py, which reads boxes and the marks of its own benchmark; an answer
    that stands elsewhere is put in a box for it."""
    check = (
        tasks.make("blocks", split="test").check
        if checker == "blocks"
        else getattr(puzzles if hasattr(puzzles, checker) else checkers, checker)
    )
    text = spoken(text)
    found = check(text, item.meta)
    if not found.parsed and (span := answer_span(text)) and span.rule in ("tag", "output", "said", "reply"):
        found = check(f"\\boxed{{{span.text}}}", item.meta)
    parsed = ",".join(map(str, found.parsed)) if isinstance(found.parsed, list) else found.parsed
    return Judged(found.ok, parsed or None)


# -- words -------------------------------------------------------------------------------------------------------------
def unwrapped(text: str) -> str:
    """Without dollar signs, ``\\text{}`` and its kin, bold marks and quotes."""
    text = WRAPPED.sub(r"\1", text.replace("**", "").replace("\\(", "").replace("\\)", "").replace("\\,", ""))
    return text.strip().strip("$`\"'“”").strip()


def normal(text: str) -> str:
    """Texts that say the same: no case, no article before, no punctuation around, single spaces."""
    text = " ".join(unicodedata.normalize("NFKC", unwrapped(text)).casefold().split()).strip(" .,;:!?()[]\"'")
    return re.sub(r"^(?:a|an|the)\s+(?=\S)", "", text)


def text_of(span: Span, item: EvalItem) -> str | None:
    return None if span.rule == "line" else unwrapped(span.text)


def same_text(parsed: str, item: EvalItem) -> bool:
    """Equal as texts, or as numbers where both are one."""
    accepted = [item.answer, *item.meta.get("accepted", ())]
    return any(
        normal(parsed) == normal(gold) or ((one := value(gold)) and not one.unit and same_value(parsed, gold))
        for gold in accepted
    )


def yes_no(span: Span, item: EvalItem) -> str | None:
    said = normal(span.text)
    found = re.fullmatch(r"(yes|no)\b(.*)", said, re.DOTALL)
    if not found or (span.rule == "line" and found[2]) or re.search(r"\b(?:yes|no)\b", found[2]):
        return None
    return found[1].capitalize()


def equal(parsed: str, item: EvalItem) -> bool:
    return parsed.casefold() == item.answer.casefold()


# -- letters -----------------------------------------------------------------------------------------------------------
def letter(span: Span, item: EvalItem) -> str | None:
    """The option that a span names by its letter or by its whole text; None where it names none or several."""
    said = NAMED.sub("", unwrapped(span.text), count=1) if NAMED.match(unwrapped(span.text)) else unwrapped(span.text)
    if found := BARE.fullmatch(said):
        name = found[1] or found[2]
        article = name.islower() and not found[1] and span.rule not in FORMAL
        return name.upper() if name.upper() in item.letters and not article else None
    if span.rule == "line":
        return None
    named = [
        name
        for name, option in zip(item.letters, item.options, strict=True)
        if option and normal(option) == normal(said)
    ]
    if named:
        return named[0] if len(named) == 1 else None
    return _with_words(said, span, item) if DELIMITED.fullmatch(said) else None


def _with_words(said: str, span: Span, item: EvalItem) -> str | None:
    """The letter of ``B. rubber`` and ``(B) because ...``: not where other options are named too, and not where a lone
    word follows that is not the option's own (``A dog``)."""
    found = DELIMITED.fullmatch(said)
    name, rest = (found[1] or found[2] or found[4]), found[3] or found[5]
    if name.upper() not in item.letters:
        return None
    texts = dict(zip(item.letters, map(normal, item.options), strict=True))
    if texts[name.upper()] and normal(rest) == texts[name.upper()]:
        return name.upper()
    others = {(a or b).upper() for a, b in MENTIONED.findall(rest)} & set(item.letters) - {name.upper()}
    if (
        found[4]
        or span.rule == "reply"
        or others
        or normal(rest) in texts.values()
        or (found[2] and name.islower() and span.rule not in FORMAL)
    ):
        return None
    return name.upper()


def letters(span: Span, item: EvalItem) -> str | None:
    """All options of a question that has several right ones: ``A, C``, ``(A) and (C)`` or ``AC``, as ``AC``."""
    said = unwrapped(span.text).removesuffix(".")
    if re.fullmatch(r"[A-Z]+", said):
        names = list(said)
    else:
        bare = [BARE.fullmatch(piece.strip()) for piece in PARTING.split(said) if piece.strip()]
        names = [(found[1] or found[2]).upper() for found in bare if found] if all(bare) else []
    if not names or not set(names) <= set(item.letters) or len(set(names)) < len(names):
        return None
    return "".join(sorted(names))


# -- numbers and sets --------------------------------------------------------------------------------------------------
class Value(NamedTuple):
    """A number, the decimals it was written with (None for a fraction), its unit and all that stands behind it."""

    number: Fraction
    decimals: int | None
    unit: str
    rest: str


def value(text: str) -> Value | None:
    """The one number of a text such as ``1,200 cm``, ``-3/4``, ``$x = 2.5$`` or ``three``; None where it is none, or
    several."""
    said = LEADING.sub("", unwrapped(text), count=1) if LEADING.match(unwrapped(text)) else unwrapped(text)
    first, _, rest = said.partition(" ")
    if first.casefold() in WORDS:
        said = f"{WORDS[first.casefold()]} {rest}"
    found = NUMBER.match(said)
    if not found or FORMULA.match(said, found.end()):
        return None
    unit = re.sub(r"\^?\{?[23²³]\}?$", "^", said[found.end() :].strip(" .()\\"))
    if re.search(r"\d", unit) or unit[:1] in (",", "-", "/", ":"):
        return None
    top, under = (found["a"] or found["c"]), (found["b"] or found["d"])
    if under is not None and int(under) == 0:
        return None
    if top is not None:
        number, decimals = Fraction(int(top), int(under)), None
    else:
        written = found["plain"].replace(",", "")
        power = int((found["power"] or "0").replace("−", "-"))
        number = Fraction("0" + written if written.startswith(".") else written.rstrip(".")) * Fraction(10) ** power
        decimals = max(0, len(written.partition(".")[2]) - power)
    return Value(-number if found["sign"] in ("-", "−") else number, decimals, unit, said[found.end() :])


def numeric(text: str) -> bool:
    """Whether a gold answer is to be graded as a number: one that is bare, or with one word or sign as its unit, as
    ``1.5 kg`` or ``30%``; not ``10 Main Street`` or ``5A``."""
    found = value(text)
    return bool(found) and (not found.unit or (len(found.unit.split()) == 1 and bool(GLUED.match(found.rest))))


def same_value(said: str, gold: str, precision: int | None = None, tolerance: float = 0.0, unit: str = "") -> bool:
    """Equal as numbers: within ``tolerance``; else to ``precision`` decimals; else to as many as the gold answer has (a
    fraction: as many as were said, two at least). Where a unit is wanted and one is said, it must be that one."""
    one, other = value(said), value(gold)
    if one is None or other is None:
        return False
    wanted = unit or other.unit
    if wanted and one.unit and _unit(one.unit) != _unit(wanted):
        return False
    away = abs(one.number - other.number)
    if tolerance:
        return away <= Fraction(str(tolerance))
    decimals = other.decimals if precision is None else precision
    if decimals is None:
        decimals = one.decimals if (one.decimals or 0) >= 2 else None
    return away == 0 or (bool(decimals) and away <= Fraction(1, 2 * 10 ** min(decimals, 40)))


def _unit(text: str) -> str:
    plain = re.sub(r"\s|\\|[{}]", "", text.casefold()).rstrip("s.")
    return re.sub(r"^(?:\^?circ|degree|deg)$", "°", plain)


def number(span: Span, item: EvalItem) -> str | None:
    found = value(span.text)
    return None if found is None or (span.rule == "line" and found.unit) else unwrapped(span.text)


def same_number(parsed: str, item: EvalItem) -> bool:
    how = {name: item.meta[name] for name in ("precision", "tolerance", "unit") if item.meta.get(name) is not None}
    return same_value(parsed, item.answer, **how)


def numbers(span: Span, item: EvalItem) -> str | None:
    """Several numbers in order: ``[1, 2.5]`` as ``1, 2.5``."""
    found = re.findall(r"[-+]?\d{1,40}(?:\.\d{1,40})?", span.text)
    return ", ".join(found) if found and span.rule != "line" else None


def same_numbers(parsed: str, item: EvalItem) -> bool:
    said, gold = parsed.split(", "), re.findall(r"[-+]?\d{1,40}(?:\.\d{1,40})?", item.answer)
    return len(said) == len(gold) and all(same_value(a, b) for a, b in zip(said, gold, strict=True))


def members(span: Span, item: EvalItem) -> str | None:
    """The members of a set, parted by commas, semicolons, line ends or ``and``."""
    found = {normal(piece) for piece in PARTING.split(span.text.strip("{}[]")) if normal(piece)}
    return ", ".join(sorted(found)) if found and span.rule != "line" else None


def same_members(parsed: str, item: EvalItem) -> bool:
    return parsed == members(Span(item.answer, "box"), item)


#: checker -> how an answer is read off its span, how it is compared
RULES: dict[str, tuple[Callable[[Span, EvalItem], str | None], Callable[[str, EvalItem], bool]]] = {
    "letter": (letter, equal),
    "letters": (letters, equal),
    "text": (text_of, same_text),
    "yes_no": (yes_no, equal),
    "number": (number, same_number),
    "numbers": (numbers, same_numbers),
    "set": (members, same_members),
}
