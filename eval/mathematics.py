"""Free-form mathematics, compared by math-verify (``pip install -e '.[math]'``).

math-verify stops long computations by a signal, which works in the main thread only. Terms that may take long, such as
``9^{9^9}``, are therefore not parsed at all.
"""

from __future__ import annotations

import re
import threading
from functools import lru_cache

from .spans import EXPLICIT_RULES, answer_span, strip_markup

MAX_CHARACTERS = 200
TIMEOUT = 5  # seconds, in the main thread
#: powers of powers, large exponents, factorials, long numbers
SLOW = re.compile(r"\^\s*(?:\{[^{}]*\^|\w\s*\^|\{?\s*-?\d{4,}|\{[^{}]*\d{4,})|!|\d{20,}|\\(?:sum|prod|int|lim)\b")
WORDS = re.compile(r"(?<!\\)\b[A-Za-z]{2,}\s+[A-Za-z]{2,}")
FORMULA = re.compile(r"[\d\\=<>+*/^|]|^\W*[A-Za-z]\W*$")  # what a word has not


def read_mathematics(reply: str, item) -> str | None:
    """The answer of a reply as LaTeX; None if it has no formula."""
    span = answer_span(reply)
    if span is None or (span.rule == "line" and not re.search(r"[\d\\$=]", span.text)):
        return None
    text = re.sub(r"\$[^$]*$", "", span.text.strip("$ .")) if span.text.count("$") % 2 else span.text
    if span.rule not in EXPLICIT_RULES and (formula := re.search(r"\$([^$]+)\$|\\\((.+?)\\\)", span.text)):
        text = formula[1] or formula[2]
    text = strip_markup(text).rstrip(". ")
    if not is_formula(text):
        return None
    return text if parse_formula(text) is not None else None


def is_formula(text: str) -> bool:
    """Whether a gold answer is a formula and no text in words."""
    return bool(FORMULA.search(text)) and not WORDS.search(text)


def matches_mathematics(parsed: str, item) -> bool:
    """Whether the answer equals the gold answer, or one that is accepted, as a formula."""
    return any(formulas_equal(parsed, gold) for gold in (item.answer, *item.meta.get("accepted", ())))


def formulas_equal(predicted: str, gold: str) -> bool:
    """Whether two formulas are equal by algebra. False if one cannot be parsed in short time."""
    from math_verify import verify

    first, second = parse_formula(predicted), parse_formula(gold)
    return first is not None and second is not None and bool(verify(second, first, timeout_seconds=time_limit()))


@lru_cache(maxsize=1024)
def parse_formula(text: str):
    """A formula in LaTeX as math-verify holds it; None if there is none or if it may take long."""
    try:
        from math_verify import parse
    except ImportError:
        raise ValueError("The rule 'math' needs math-verify. Run: pip install -e '.[math]'") from None

    if len(text) > MAX_CHARACTERS or SLOW.search(text):
        return None
    return parse(f"${text}$", fallback_mode="no_fallback", parsing_timeout=time_limit()) or None


def time_limit() -> int | None:
    """Seconds until math-verify gives up; None outside of the main thread, where signals do not arrive."""
    return TIMEOUT if threading.current_thread() is threading.main_thread() else None
