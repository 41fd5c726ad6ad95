"""The options of a question as replies name them: by letter, by text, or both."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .number_words import NUMBER_WORDS
from .numbers import same_number
from .spans import normalize, plain_text, strip_markup

OPTION_NOUN = r"(?:(?:the )?(?:option|choice|letter|answer|选项)\s*:?\s*)?"
#: an option by its letter; a small letter only in brackets or at the end of a line, because "a" is an article
NAME = (
    rf"{OPTION_NOUN}[\"'“‘$]*(?:[(\[]\s*(?P<bracketed>[A-Za-z])\s*[)\]]"
    r"|(?P<bare>[A-Z](?![A-Za-z0-9_'’])|[b-j](?=[\"'.]*(?:\n|$))))[\"'”’$]*"
)
BARE_NAME = re.compile(r"[(\[]([A-Za-z])[)\]][.:]?|([A-Za-z])\)?[.:]?")
OPTION_PREFIX = re.compile(r"(?:the )?(?:option|choice|letter|answer|选项)\s*(?=[(\[]?[A-Za-z]\b)", re.IGNORECASE)
ARTICLE = r"(?<=A) (?!(?:or|and|is|was|but|because|nor|over|as|to|than|has|does|in)\b)[a-z]"  # "A wall", not "A or B"
OPTION_SUFFIX = re.compile(r"(?<=[A-Z)\]])\s*(?:选项|選項|项)\.?$")
LETTER = re.compile(rf"[(\[]([A-Za-z])[)\]]|(?<![A-Za-z0-9_'’])([A-Z])(?![A-Za-z0-9_'’])(?!{ARTICLE})")
NAMED = re.compile(r"[(\[]([A-Za-z])[)\]]|\b(?:[Oo]ption|[Cc]hoice) ([A-Z])\b")  # a letter that can be no other word
LABEL = re.compile(rf"{NAME}(?:(?<=[)\]])|\s*[.:)\-–]|(?=\s*$))")
BETWEEN = " .:,;()[]-–—、\"'"  # may stand between the letter and the text of an option
QUOTED = re.compile(r"\"[^\"\n]*\"|“[^”\n]*”")
TRUTH_WORDS = ("yes", "no", "true", "false")


def letter_of(match: re.Match) -> str:
    """The letter of a match of ``NAME``."""
    return (match["bracketed"] or match["bare"]).upper()


def strip_name(text: str) -> str:
    """The name of an option without a word around it: ``Option B``, ``B选项``."""
    return OPTION_SUFFIX.sub("", OPTION_PREFIX.sub("", strip_markup(text).replace("。", "."), count=1))


class Options:
    """The options of a question.

    Args:
        letters: of the options in order.
        options: their texts; "" for an option without a text. In "A is closer" and "B is closer" the first word is a
            name and no article.
    """

    def __init__(self, letters: str, options: Sequence[str]):
        self.letters = letters
        are_names = all(re.match(r"[A-Z]\b", option) for option in options)
        plain = plain_text if are_names else normalize
        self.values = dict(zip(letters, options, strict=True))
        texts = {name: plain(option) for name, option in self.values.items()}
        self.texts = {name: text for name, text in texts.items() if text}

    def name(self, text: str, may_be_word: bool = False) -> str | None:
        """The option that a text is: ``B``, ``(b)``, ``green``, ``(B) green``. None if it is none or several.

        Args:
            may_be_word: whether a small letter may be a word, such as ``a``.
        """
        text = strip_name(text)
        if BARE_NAME.fullmatch(text):
            return self.letter(text, may_be_word)
        if named := [name for name, option in self.texts.items() if option in (plain_text(text), normalize(text))]:
            return named[0] if len(named) == 1 else None
        if match := re.match(NAME, text):
            rest, own = strip_markup(text[match.end() :].lstrip(BETWEEN)), self.texts.get(letter_of(match))
            if own and own in (plain_text(rest), normalize(rest)):
                return letter_of(match)
        equal = [name for name, option in self.values.items() if same_number(text, option)]
        return equal[0] if len(equal) == 1 else None

    def letter(self, text: str, may_be_word: bool = False) -> str | None:
        """The option that a text is by its letter alone: ``B``, ``(b)``, ``Option B``."""
        match = BARE_NAME.fullmatch(strip_name(text))
        if not match or (may_be_word and (match[2] or "A").islower()):
            return None
        name = (match[1] or match[2]).upper()
        return name if name in self.letters else None

    def name_at_start(self, text: str) -> str | None:
        """The option that a line begins with, by its letter and its text: ``B. green, like the wall``."""
        if name := self.name(text, may_be_word=True):
            return name
        match = re.match(NAME, text)
        rest = self.after_text(letter_of(match), text[match.end() :]) if match else None
        return letter_of(match) if match and rest is not None and not self.others(letter_of(match), rest) else None

    def after_text(self, name: str, text: str) -> str | None:
        """What follows the text of an option at the start of a text; None if it does not stand there."""
        if (own := self.texts.get(name)) is None:
            return None
        said = strip_markup(text.lstrip(BETWEEN))
        words = r"[^\w.]+".join(map(re.escape, own.split()))
        match = re.match(rf"(?:(?:a|an|the)\s+)?{words}(?!-?[A-Za-z0-9])", said, re.IGNORECASE)
        return said[match.end() :] if match else None

    def text_at_start(self, text: str) -> tuple[str, str] | None:
        """(name, what follows) of the longest option text that a text begins with; None if there is none or if two
        options have this text."""
        starts = [(name, rest) for name in self.texts if (rest := self.after_text(name, text)) is not None]
        shortest = min((len(rest) for _, rest in starts), default=0)
        longest = [start for start in starts if len(start[1]) == shortest]
        return longest[0] if len(longest) == 1 else None

    def letters_in(self, text: str, pattern: re.Pattern = LETTER) -> set[str]:
        """The letters of options that a text names."""
        return {(first or second).upper() for first, second in pattern.findall(text)} & set(self.letters)

    def others(self, name: str, text: str) -> set[str]:
        """The letters of other options that a text names."""
        return self.letters_in(text) - {name}

    def label(self, line: str) -> set[str]:
        """The letter that a line of a list begins with: ``B: too dark``."""
        match = LABEL.match(line)
        return {letter_of(match)} & set(self.letters) if match else set()

    def texts_in(self, sentence: str) -> set[str]:
        """The options whose texts stand in a sentence. A text inside a longer one that stands there does not count.
        Options that are numbers are compared with all numbers of the sentence. Yes and no have other meanings."""
        said = plain_text(QUOTED.sub(" ", sentence))
        if self.texts and all(re.fullmatch(r"\d{1,6}", text) for text in self.texts.values()):
            numbers = re.findall(r"(?<![\w.,:/^√-])\d+(?![\w%:/^!]|\s?[√π\\]|[.,]\d)", said)
            numbers += [NUMBER_WORDS[word] for word in re.findall(r"[a-z]+", said) if word in NUMBER_WORDS]
            return {name for name, text in self.texts.items() if set(numbers) == {text}}
        found = {
            name: text
            for name, text in self.texts.items()
            if len(text) > 1 and text not in TRUTH_WORDS and _contains(said, text)
        }
        return {name for name, text in found.items() if not any(text != o and text in o for o in found.values())}


def _contains(text: str, words: str) -> bool:
    """Whether whole words stand in a text. Chinese has no spaces between words."""
    return re.search(rf"(?<![A-Za-z0-9.,-]){re.escape(words)}(?!-?[A-Za-z0-9]|[.,]\d)", text) is not None
