"""Reads the option that a reply chooses.

An explicit answer (a box, a tag) has to be an option and nothing else. Other replies are read sentence by sentence. A
sentence decides for an option if it says so: "the answer is B", "option B is correct", "I choose B", "so (B)". The last
decision counts. Without one, a line that is an option counts ("(B) green"), if no other line is another option; then the
only option that the reply names in brackets or by its text. Questions, negations, conditions and sentences that
leave two options open decide nothing. A reply that is not clear has no letter; it is never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from .numbers import NUMBER_WORDS
from .spans import (
    ADVERB,
    ANSWER_NOUN,
    CHOOSE_CHINESE,
    EXPLICIT_RULES,
    LINK,
    AnswerSpan,
    answer_span,
    clean_reply,
    join_headings,
    normalize,
    strip_markup,
)

OPTION_NOUN = r"(?:(?:the )?(?:option|choice|letter|answer|选项)\s*:?\s*)?"
#: an option by its letter; a small letter only in brackets, because "a" is an article
NAME = rf"{OPTION_NOUN}[\"'“‘$]*(?:[(\[]\s*(?P<bracketed>[A-Za-z])\s*[)\]]|(?P<bare>[A-Z])(?![A-Za-z0-9_'’]))[\"'”’$]*"
BARE_NAME = re.compile(r"(?:\(([A-Za-z])\)|\[([A-Za-z])\]|([A-Za-z])\)?)[.:]?")
OPTION_PREFIX = re.compile(r"(?:the )?(?:option|choice|letter|选项)\s*(?=\(?[A-Za-z]\b)", re.IGNORECASE)
BEST = r"(?:the )?(?:only )?(?:(?:correct|right|best|valid|accurate|(?:most|more) \w+)\b|answer\b|(?:option|choice|one) that\b)"
CHOOSE = (
    r"(?:\b(?:I|we)(?: (?:would|will|must|have to|can)|['’](?:d|ll))? |\blet['’]s |\blet us )(?:\w+ly )?"
    r"(?:choose|pick|select|go with|go for|say|answer|lean towards?|opt for|guess|vote for)\b:?"
)
GUESS = r"\b(?:best|educated|final)? ?(?:guess|pick|bet) (?:is|would be):?"
CONCLUDE = r"(?:^|,\s*)(?:so|therefore|thus|hence|accordingly|consequently|因此|所以)\b[, ]*"
#: what stands before the letter of a decision
LEADS = (
    rf"{ANSWER_NOUN}{LINK}",
    rf"{CHOOSE}\s*",
    rf"{GUESS}\s*",
    CHOOSE_CHINESE,
    rf"\b(?:it|that|this)(?: is|['’]s)(?: {ADVERB})?\s+",
    rf"{CONCLUDE}(?:it is |it['’]s )?(?={OPTION_NOUN}[\"'“]*[(\[]?[A-Za-z][)\]]?\W*$)",
)
DECISIONS = [re.compile(rf"(?i:{lead})(?:\n\s*)?{NAME}") for lead in LEADS]
#: a decision with the letter in front: B is correct
BACKWARD = re.compile(
    rf"(?:(?m:^)|[,;:.]\s*|\b(?i:so|therefore|thus|hence|that|believe|think|only|option|choice|answer|clearly)\s+){NAME}"
    rf"(?:\s*(?:选项|项)?(?:是)?(?:正确|对的)|\s+(?i:(?:is|must be|would be|seems(?: to be)?|appears to be)(?: {ADVERB})?\s+{BEST}"
    rf"|(?:best )?(?:matches|fits)\b))"
)
HEADED = re.compile(rf"[:：]\s*\n\s*{NAME}")  # ":" at the end of a line, an option on the next
NEGATION = re.compile(
    r"n['’]t\b|\b(?:not|never|cannot|no|none|neither|nor|without|wrong|incorrect|excluded?|rather than|instead of)\b"
    r"|不|错|非|没|无",
    re.IGNORECASE,
)
HEDGE = re.compile(
    r"\b(?:either|whether|could|might|may|maybe|perhaps|possibly|unless|unclear|unsure|depends?|torn|hard to"
    r"|difficult to|impossible)\b|可能|或|也许|无法|如果",
    re.IGNORECASE,
)
CONDITION = re.compile(
    r"\b(?:if (?!(?:i|we|you|one) (?:must|had|have|need|were|assume))|whether|either|maybe|perhaps|unless|would be if)",
    re.IGNORECASE,
)
CLAUSE_END = re.compile(r"[,;:.!?，。；：]\s*|\b(?:but|so|therefore|hence|thus|because|since)\b", re.IGNORECASE)
EXPLAINED = re.compile(
    r"\s*(?:because|since|as|which|where|with|given|due|based|according|for|in|on|from|rather|not|instead|due to|and not"
    r"|是|项|选项|です|입니다|因为)(?![a-z])",
    re.IGNORECASE,
)
ARTICLE = r"(?<=A) (?!(?:or|and|is|was|but|because|nor|over|as|to|than|has|does|in)\b)[a-z]"  # "A wall", not "A or B"
REVOKED = re.compile(r"\b(?:wait|actually|hmm|correction|on second thought|or)\b|不对", re.IGNORECASE)
SENTENCE_END = re.compile(
    r"(?<![\s(\[][A-Za-z0-9])(?<!^[A-Za-z0-9])[.!?]+[\"'”)]*\s+|(?<=[)\]])[.]\s+|[。！？]|\n+", re.MULTILINE
)
CONCLUSION = re.compile(r"(?:so|therefore|thus|hence|overall|in conclusion|in summary|因此|所以)\b", re.IGNORECASE)
TRUTH_WORDS = {"yes", "no", "true", "false"}


class Question(Protocol):
    """What reading a letter needs of an item: the letters of the options and their texts, "" for one without text."""

    @property
    def letters(self) -> str: ...
    @property
    def options(self) -> tuple[str, ...]: ...


class Decision(NamedTuple):
    """An option that a reply decides for, and where in the reply its letter ends."""

    name: str
    end: int


def read_letter(reply: str, item: Question) -> str | None:
    """The letter of the option that a reply chooses; None if it chooses none or several."""
    span = answer_span(reply)
    if span is None:
        return None
    if span.rule == "box" or (span.rule in EXPLICIT_RULES and name_option(span, item)):
        lead = re.match(rf"(?:the )?{ANSWER_NOUN}{LINK}", strip_markup(span.text), re.IGNORECASE)
        text = strip_markup(span.text)[lead.end() :] if lead else span.text
        return name_option(AnswerSpan(text, span.rule), item)
    return read_prose(clean_reply(span.text if span.rule in EXPLICIT_RULES else reply), item)


def name_option(span: AnswerSpan, item: Question) -> str | None:
    """The option that a span is, by its letter, its text, or both: ``B``, ``green``, ``(B) green``."""
    text = strip_markup(span.text).translate({ord("。"): "."})
    text = OPTION_PREFIX.sub("", text, count=1)
    if match := BARE_NAME.fullmatch(text):
        name = next(filter(None, match.groups()))
        is_article = match[3] == "a" and span.rule == "line"
        return name.upper() if name.upper() in item.letters and not is_article else None
    if named := [name for name, option in texts_of(item).items() if option == normalize(text)]:
        return named[0] if len(named) == 1 else None
    if match := re.fullmatch(rf"{NAME}[\s.:),、\-–—]*(\S.*)", text, re.DOTALL):
        name = (match["bracketed"] or match["bare"]).upper()
        own = texts_of(item).get(name)
        return name if own and strip_markup(match[3]) and normalize(match[3]) == own else None
    return None


def texts_of(item: Question) -> dict[str, str]:
    """Letter -> normalized text of the option. Options without a text are left out."""
    return {
        name: normalize(option) for name, option in zip(item.letters, item.options, strict=True) if normalize(option)
    }


# -- prose -------------------------------------------------------------------------------------------------------------
def read_prose(text: str, item: Question) -> str | None:
    """The option that a reply in sentences decides for."""
    text = "\n".join(map(strip_markup, join_headings(text)))
    if not text:
        return None
    if "\n" not in text and (name := name_option(AnswerSpan(text, "line"), item)):
        return name
    if decisions := sorted(find_decisions(text, item), key=lambda decision: decision.end):
        last = decisions[-1]
        rest = text[last.end :]
        is_revoked = REVOKED.search(rest) and mentioned(rest, item) - {last.name}
        return None if is_revoked else last.name
    return read_lines(text, item) or read_mentions(text, item)


def find_decisions(text: str, item: Question) -> Iterator[Decision]:
    """Every place where a reply says which option is right."""
    for pattern in [*DECISIONS, BACKWARD]:
        for match in pattern.finditer(text):
            name = (match["bracketed"] or match["bare"]).upper()
            end = match.end("bracketed") if match["bracketed"] else match.end("bare")
            start = match.start() if pattern is not BACKWARD else max(match.start("bracketed"), match.start("bare"))
            tail = sentence_at(text[match.end() :] if pattern is not BACKWARD else "")
            if name in item.letters and is_positive(text, start) and is_closed(name, tail, item, match):
                yield Decision(name, end)
    for match in HEADED.finditer(text):
        name = (match["bracketed"] or match["bare"]).upper()
        line = text[match.start() + 1 :].strip().partition("\n")[0]
        if starts_option(line, item) == name and is_single(text[match.end() :], name, item):
            yield Decision(name, match.end())
    for match in re.finditer(rf"(?i:{LEADS[0]}|{LEADS[1]}\s*)(?=(\S[^\n]*))", text):
        named = text_named(sentence_at(match[1]), item)
        if named and is_positive(text, match.start()) and not is_question(text[match.start() :]):
            yield Decision(named, match.end())


def sentence_at(text: str) -> str:
    """The rest of a sentence, without a new sentence that begins with a word: ``. The wall``."""
    return re.split(r"[.!]\s+(?=[A-Z][a-z]|\d\.)|(?<=[)\]])\.\s|[。\n]", text, maxsplit=1)[0]


def is_positive(text: str, start: int) -> bool:
    """Whether the clause before a decision neither negates it nor makes it a condition."""
    sentence = SENTENCE_END.split(text[:start])[-1]
    clause = CLAUSE_END.split(sentence)[-1]
    return not NEGATION.search(clause) and not CONDITION.search(sentence) and not re.search(r"可能|如果", sentence)


def is_question(text: str) -> bool:
    return sentence_at(text).rstrip(" \"'”)").endswith("?")


def is_closed(name: str, tail: str, item: Question, match: re.Match) -> bool:
    """Whether the words after the letter of a decision leave no other option open."""
    if tail.rstrip(" \"'”)").endswith("?") or re.match(r"[\s,]*(?:if|unless|when|only if)\b", tail):
        return False
    texts, own = texts_of(item), texts_of(item).get(name)
    said = normalize(tail.lstrip(" .:,;()[]-–—\"'"))
    if own and starts_with(said, own):
        return not others_mentioned(name, said_after(tail, own), item)
    if any(starts_with(said, other) for key, other in texts.items() if key != name):
        return False
    if tail and not re.match(r"\s*[.,;:!()\[\]\-–—\"'”]|\s*$", tail) and not EXPLAINED.match(tail):
        return False
    return not others_mentioned(name, tail, item)


def said_after(tail: str, own: str) -> str:
    """The words of a tail after the text of the option, as far as its length tells."""
    return tail[len(tail) - len(tail.lstrip(" .:,;()[]-–—\"'")) + len(own) :]


def others_mentioned(name: str, tail: str, item: Question) -> bool:
    """Whether a tail names another option before it gives a reason."""
    for reason in re.finditer(EXPLAINED.pattern.replace(r"\s*(?:", r"[\s,;:—–-]+(?:", 1), tail, re.IGNORECASE):
        if not mentioned(tail[: reason.start()], item) - {name}:
            return False
        break
    return bool(mentioned(tail, item) - {name})


def mentioned(text: str, item: Question) -> set[str]:
    """The letters of options that a text names."""
    found = re.findall(rf"[(\[]([A-Za-z])[)\]]|(?<![A-Za-z0-9_'’])([A-Z])(?![A-Za-z0-9_'’])(?!{ARTICLE})", text)
    return {(bracketed or bare).upper() for bracketed, bare in found} & set(item.letters)


def starts_with(text: str, words: str) -> bool:
    """Whether a text begins with whole words."""
    return text.startswith(words) and not re.match(r"[A-Za-z0-9]", text[len(words) :])


# -- lines and mentions ------------------------------------------------------------------------------------------------
def starts_option(line: str, item: Question) -> str | None:
    """The option of a line such as ``B``, ``(B)``, ``(B) green`` or ``B. green, like the wall``."""
    if name := name_option(AnswerSpan(line, "line"), item):
        return name
    match = re.match(NAME, line)
    name = (match["bracketed"] or match["bare"]).upper() if match else ""
    own = texts_of(item).get(name)
    rest = normalize(line[match.end() :].lstrip(" .:,;)-–—")) if match else ""
    return name if own and starts_with(rest, own) and not others_mentioned(name, line[match.end() :], item) else None


def is_single(rest: str, name: str, item: Question) -> bool:
    """Whether the next line is not another option, as in a list of the options."""
    following = [line for line in rest.splitlines()[1:] if line.strip()]
    return not following or not labels(following[0]) - {name}


def labels(line: str) -> set[str]:
    match = re.match(rf"(?:{NAME})\s*[.:)\-–]", line) or re.match(rf"{NAME}(?=\s*$)", line)
    return {(match["bracketed"] or match["bare"]).upper()} if match else set()


def read_lines(text: str, item: Question) -> str | None:
    """The option that a line of a reply is, if no other line is another option. A bare letter counts more than an
    option with its text, which may be one of a list."""
    lines = text.splitlines()
    bare = {name for line in lines if (name := name_option(AnswerSpan(line, "line"), item)) and len(line) < 12}
    if len(bare) != 1:
        named = {name for line in lines if (name := starts_option(line, item))}
        labeled = set().union(*map(labels, lines)) & set(item.letters)
        return named.pop() if len(named) == 1 and not bare and not labeled - named else None
    return bare.pop()


def read_mentions(text: str, item: Question) -> str | None:
    """The only option that a reply names, in brackets or by its text, in a sentence without negation or doubt."""
    sentences = [part.strip() for part in SENTENCE_END.split(text) if part and part.strip()]
    names: set[str] = set()
    for sentence in sentences:
        found = {name.upper() for name in re.findall(r"[(\[]([A-Za-z])[)\]]", sentence)} & set(item.letters)
        by_text = options_in(sentence, item)
        if (found or by_text) and (NEGATION.search(sentence) or HEDGE.search(sentence) or is_question(sentence)):
            return answer_word(sentences, item)
        if found and by_text - found:
            return None
        names |= found or by_text
    bare = mentioned(text, item) - names
    is_clear = len(names) == 1 and not bare
    return names.pop() if is_clear else answer_word(sentences, item)


def answer_word(sentences: list[str], item: Question) -> str | None:
    """The option yes or no that a reply begins with."""
    match = re.match(r"(yes|no|true|false)\s*(?:[.,;:!-]|$)", sentences[0], re.IGNORECASE)
    named = [name for name, text in texts_of(item).items() if match and text == match[1].lower()]
    return named[0] if named else None


def text_named(sentence: str, item: Question) -> str | None:
    """The option whose text a sentence begins with: ``green, like the wall``."""
    if is_question(sentence) or HEDGE.search(sentence) or NEGATION.match(sentence):
        return None
    said = normalize(sentence)
    named = sorted(
        (name for name, text in texts_of(item).items() if starts_with(said, text)),
        key=lambda name: len(texts_of(item)[name]),
    )
    if not named or len(set(texts_of(item)[name] for name in named)) < len(named):
        return None
    rest = said[len(texts_of(item)[named[-1]]) :]
    is_end = re.match(r"\s*(?:$|[.,;:(\-–—])", rest) or EXPLAINED.match(rest)
    letters = mentioned(sentence[len(texts_of(item)[named[-1]]) :], item)
    return named[-1] if is_end and not letters - {named[-1]} else None


def options_in(sentence: str, item: Question) -> set[str]:
    """The options whose texts stand in a sentence. A text inside a longer one that stands there does not count. Options
    that are numbers are compared with all numbers of the sentence; yes and no may mean other things."""
    texts = {
        name: text
        for name, text in texts_of(item).items()
        if text not in TRUTH_WORDS and len(text) > 1 - text.isdigit()
    }
    said = f" {normalize(sentence)} "
    if texts and all(re.fullmatch(r"\d{1,6}", text) for text in texts.values()):
        words = re.findall(r"(?<![\w.,])\d+(?![\w%]|[.,]\d)|[a-z]+", said)
        numbers = {NUMBER_WORDS.get(word, word) for word in words} - {word for word in words if word.isalpha()}
        return {name for name, text in texts.items() if numbers == {text}}
    found = {name for name, text in texts.items() if len(text) > 1 and contains(said, text)}
    return {name for name in found if not any(texts[name] != texts[o] and texts[name] in texts[o] for o in found)}


def contains(text: str, words: str) -> bool:
    """Whether whole words stand in a text. Chinese has no spaces between words."""
    return re.search(rf"(?<![A-Za-z0-9.,]){re.escape(words)}(?![A-Za-z0-9]|[.,]\d)", text) is not None
