"""Numbers that are written in words: ``twenty-five``, ``two thirds``, ``1 million``, ``minus 5``, ``七``."""

from __future__ import annotations

import re
from fractions import Fraction

SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
TENS = {
    word: n
    for n, word in zip(range(20, 100, 10), "twenty thirty forty fifty sixty seventy eighty ninety".split(), strict=True)
}
NUMBER_WORDS = {word: str(n) for n, word in enumerate(SMALL.split())} | {word: str(n) for word, n in TENS.items()}
SCALES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9}
#: a quarter is a coin, too, and a second is a time
PARTS = dict.fromkeys(("half", "halves"), 2) | {
    word + plural: n
    for n, word in enumerate("third fourth fifth sixth seventh eighth ninth tenth".split(), 3)
    for plural in ("", "s")
}
WORD = "|".join([*NUMBER_WORDS, *SCALES])
PHRASE = re.compile(
    rf"(?<![\w.,/-])(?P<numbers>(?:\d{{1,15}}(?:\.\d{{1,15}})?|(?:{'|'.join(NUMBER_WORDS)})\b)"
    rf"(?:(?:[ -]|(?<=d) and |(?<=n) and )(?:{WORD})\b)*)(?:[ -](?P<part>{'|'.join(PARTS)})\b)?",
    re.IGNORECASE,
)
MINUS = re.compile(
    rf"(?P<before>^\W*|\b(?:is|are|was|be|equals|of|answer)\W+|[=:]\s*)(?:minus|negative)\s+(?P<number>[\d.]|(?:{'|'.join(NUMBER_WORDS)})\b)",
    re.IGNORECASE,
)
CHINESE_DIGITS = {
    "〇": 0,
    "零": 0,
    "一": 1,
    "二": 2,
    "两": 2,
    "三": 3,
    "四": 4,
    "五": 5,
    "六": 6,
    "七": 7,
    "八": 8,
    "九": 9,
}
CHINESE = re.compile(
    r"(?P<tens>[二三四五六七八九]?十)?(?P<ones>[〇零一二两三四五六七八九])?(?:[个只条张辆人本把]\w?)?[.。]?"
)


def write_digits(text: str) -> str:
    """A text with digits for the numbers of several words. ``One`` alone may be a pronoun and stays."""
    text = PHRASE.sub(_digits, text)
    return MINUS.sub(
        lambda match: f"{match['before']}-{NUMBER_WORDS.get(match['number'].lower(), match['number'])}", text
    )


def _digits(match: re.Match) -> str:
    value = number_of_words(match["numbers"])
    if value is None or (match["part"] is None and not re.search(r"[ -]", match["numbers"])):
        return match[0]
    return f"{value}/{PARTS[match['part'].lower()]}" if match["part"] else str(value)


def number_of_words(text: str) -> int | Fraction | None:
    """The number of words such as ``two thousand and five``; None if they are no single number."""
    total, group, last_scale, room = Fraction(0), Fraction(0), 10**12, 10**15  # the next word is smaller than room
    for word in re.split(r"[ -](?:and )?", text.lower()):
        scale = SCALES.get(word, 0)
        if scale and (not group or scale >= last_scale):
            return None
        if scale > 100:
            total, group, last_scale, room = total + group * scale, Fraction(0), scale, scale
        elif scale:
            group, room = group * scale, 100 if scale == 100 else 0
        else:
            number = Fraction(NUMBER_WORDS.get(word, word))
            if number >= room or (total + group and not number):
                return None
            group, room = group + number, 10 if word in TENS else 0
    value = total + group
    return int(value) if value.denominator == 1 else value


def chinese_number(text: str) -> str | None:
    """The digits of a text that is a Chinese number below 100, with a classifier at most."""
    match = CHINESE.fullmatch(text.strip())
    if not match or not (match["tens"] or match["ones"]):
        return None
    tens = CHINESE_DIGITS.get(match["tens"][0], 1) if match["tens"] else 0
    return str(10 * tens + CHINESE_DIGITS.get(match["ones"], 0))
