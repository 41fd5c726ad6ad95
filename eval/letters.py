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
from typing import NamedTuple

from .doubts import (
    ANNOUNCED,
    ATTRIBUTION,
    CONDITION,
    CONSIDER,
    HEDGE,
    NEGATION,
    QUESTION,
    SENTENCE,
    SENTENCE_END,
    UNABLE,
    is_positive,
)
from .items import EvalItem
from .option_names import NAME, NAMED, OPTION_NOUN, Options, letter_of
from .spans import (
    ADVERB,
    ANSWER_LEAD,
    ANSWER_NOUN,
    CHOOSE_CHINESE,
    EXPLICIT_RULES,
    LINK,
    answer_span,
    clean_reply,
    join_headings,
    strip_markup,
)

BEST = (
    r"(?:the )?(?:only )?(?:(?:correct|right|best|valid|accurate|(?:most|more) \w+)\b|answer\b"
    r"|(?:option|choice|one) that\b|my (?:final )?(?:answer|choice)\b)"
)
CHOOSE = (
    r"(?:\b(?:I|we)(?: (?:would|will|must|have to|can)|['’](?:d|ll))? |\blet['’]s |\blet us )(?:\w+ly )?"
    r"(?:choose|pick|select|go with|go for|say|answer|lean towards?|opt for|guess|vote for)\b:?\s*"
)
GUESS = r"(?:\b(?:guess|pick|bet) (?:is|would be):?|\b(?:leaves|leaving)(?: us)?(?: with)?(?: only)?)\s*"
CONCLUDE = r"(?:^|[,.!?]\s*)(?:so|therefore|thus|hence|accordingly|consequently)\b[, ]*|(?:因此|所以|故)[, ]*是?\s*"
IT_IS = (
    rf"(?:^|[.,!]\s+|\b(?:think|believe|guess|say|so|therefore|thus|hence|that|but)\s+)it(?: is|['’]s)(?: {ADVERB})?\s+"
    rf"(?={OPTION_NOUN}\W*\w\W*(?:$|\n|because|since|\w+\W*$))"
)
LABELED = r"(?:^|\n)(?:selected |chosen |my )?(?:option|choice|letter|solution|correct|response|result)\s*:\s*"
#: what stands before the letter of a decision
LEADS = (
    rf"{ANSWER_NOUN}{LINK}",
    CHOOSE,
    GUESS,
    CHOOSE_CHINESE,
    IT_IS,
    LABELED,
    r"^#{4}\s*",
    rf"(?:not|n['’]t) {OPTION_NOUN}\W*\w\W* but (?:rather )?",
    rf"{CONCLUDE}(?:it is |it['’]s )?(?={OPTION_NOUN}[\"'“]*[(\[]?[A-Za-z][)\]]?\W*(?:\n|$))",
)
DECISIONS = [re.compile(rf"(?im:{lead}){NAME}") for lead in LEADS]
#: a decision with the letter in front: B is correct
BACKWARD = re.compile(
    rf"(?:(?m:^)|[,;:.]\s*|\b(?i:so|therefore|thus|hence|that|believe|think|only|option|choice|answer|clearly)\s+){NAME}"
    rf"(?:\s*(?:选项|项)?(?:是|最)?(?:正确|对的|符合|合适|准确)|\s+(?i:(?:is|must be|would be|(?:seems|appears|looks)(?: to be)?)(?: {ADVERB})?"
    rf"\s+{BEST}|(?:best )?(?:matches|fits)\b))"
)
ONLY = re.compile(rf"\b(?i:only) {NAME}\s+(?:works|fits|matches|remains|is (?:left|possible))\b")
#: an option on the line after "is:"
HEADED = re.compile(
    r"\b(?i:is|be|select|choose|pick|towards?|with|answer|choice|option|conclusion|conclude|therefore|thus|hence|so)"
    rf"\s*:\n{NAME}"
)
#: the last sentence of a reply, if it says little more than the letter
LAST = re.compile(
    rf"(?:(?:.*\b)?(?:is|be|to|with|matches)\b:?\s+|(?:I (?:think|guess|believe|say),? )?(?:{ADVERB}|certainly|surely)?,?\s*)"
    rf"{NAME}[.!\s]*",
    re.IGNORECASE,
)
BEFORE_TEXT = re.compile(rf"(?im:{ANSWER_NOUN}{LINK}|{CHOOSE}|{CONCLUDE})")
REASON = (
    r"(?:because|since|as|over|which|where|with|given|due|based|according|for|in|on|from|rather|not|instead|and not"
    r"|是|项|选项|です|입니다|因为)(?![a-z])"
)
REASON_NEXT = re.compile(rf"\s*{REASON}", re.IGNORECASE)
REASON_LATER = re.compile(rf"[\s,;:(—–-]{REASON}", re.IGNORECASE)
CONDITION_NEXT = re.compile(r"[\s,]*(?:if|unless|when|only if)\b", re.IGNORECASE)
ALSO_RIGHT = re.compile(
    r"\b(?:also|equally|too|as well)\b[^.!?]*\b(?:correct|right|true|valid|possible|plausible|acceptable|works?|fits?|matches)\b"
    r"|\b(?:correct|right|true|valid|possible|plausible|acceptable|works|fits|matches)\b[^.!?]*\b(?:too|as well|also)\b",
    re.IGNORECASE,
)
VERDICT = re.compile(
    rf"{NAME}\s*[:.)–—-]?\s*(?:is\s+)?(?P<verdict>correct|right|[✅✓✔]|incorrect|wrong|not correct|[❌✗✘])(?:[.!](?:\s.*)?)?",
    re.IGNORECASE,
)
RIGHT = ("correct", "right", "✅", "✓", "✔")
REVOKED = re.compile(r"\b(?:alternatively|wait|actually|hmm|correction|on second thought|or)\b|不对", re.IGNORECASE)
TRUTH_WORD = re.compile(r"(yes|no|true|false)\s*(?:[.,;:!-]|$)", re.IGNORECASE)


class Decision(NamedTuple):
    """An option that a reply decides for, and where in the reply its name begins and ends."""

    name: str
    start: int
    end: int


def read_letter(reply: str, item: EvalItem) -> str | None:
    """The letter of the option that a reply chooses; None if it chooses none or several."""
    span, options = answer_span(reply), Options(item.letters, item.options)
    if span is None:
        return None
    if span.rule not in EXPLICIT_RULES:
        return read_prose(clean_reply(reply), options)
    text = strip_markup(span.text)
    name = options.name(ANSWER_LEAD.sub("", text, count=1))
    return name if name or span.rule == "box" else read_prose(text, options)


def read_prose(text: str, options: Options) -> str | None:
    """The option that a reply in sentences decides for."""
    text = "\n".join(map(strip_markup, join_headings(text.replace("。", "。\n"))))
    if not text:
        return None
    if "\n" not in text and (name := options.name(text, may_be_word=text.strip(" .:") == "a")):
        return name
    if decisions := sorted(find_decisions(text, options), key=lambda decision: decision.end):
        return None if is_revoked(text, decisions, options) else decisions[-1].name
    if verdicts := read_verdicts(text, options):
        return verdicts.pop() if len(verdicts) == 1 else None
    return read_lines(text, options) or read_last_sentence(text, options) or read_mentions(text, options)


# -- decisions ---------------------------------------------------------------------------------------------------------
def find_decisions(text: str, options: Options) -> Iterator[Decision]:
    """Every place where a reply says which option is right."""
    for pattern in [*DECISIONS, BACKWARD, ONLY]:
        for match in pattern.finditer(text):
            decision = Decision(letter_of(match), *match.span("bracketed" if match["bracketed"] else "bare"))
            punctuation = re.match(r"[\s,.;:!?]*", match[0]).end()
            start = decision.start if pattern in (BACKWARD, ONLY) else match.start() + punctuation
            if (match["bare"] or "A").islower() and pattern is not DECISIONS[0]:
                continue
            rest = text[match.end() : match.end() + SENTENCE]
            if is_positive(text, start) and is_closed(rest, match, options, pattern in (BACKWARD, ONLY)):
                yield decision
    for match in HEADED.finditer(text):
        following = text[match.start() : match.start() + 2 * SENTENCE].partition("\n")[2]
        name, rest = letter_of(match), following.splitlines()
        is_list = len(rest) > 1 and options.label(rest[1]) - {name}
        is_option = options.name_at_start(rest[0]) == name or (match["bracketed"] and name not in options.texts)
        if is_option and not is_list and is_positive(text, match.start()):
            yield Decision(name, match.start(), match.end())
    for match in BEFORE_TEXT.finditer(text):
        if (name := named_by_text(text[match.end() : match.end() + SENTENCE], options)) and is_positive(
            text, match.start()
        ):
            yield Decision(name, match.start(), match.end())


def is_closed(rest: str, match: re.Match, options: Options, is_backward: bool) -> bool:
    """Whether the words after the letter of a decision leave no other option open."""
    name, tail = letter_of(match), first_sentence(rest)
    if name not in options.letters or is_question(rest) or CONDITION_NEXT.match(tail):
        return False
    if is_backward:
        return True
    if (after := options.after_text(name, tail)) is not None:
        return not names_others(name, after, options)
    if options.text_at_start(tail.lstrip(" .:,;()-–—")):
        return False
    is_word = re.match(r"\s*[\w\\]", tail) and not REASON_NEXT.match(tail)
    return not (is_word and match["bare"]) and not names_others(name, tail, options)


def first_sentence(text: str) -> str:
    """The rest of a sentence, without a new sentence that begins with a word: ``. The wall``."""
    return re.split(r"[.!]\s+(?=[A-Z][a-z]|\d\.)|(?<=[)\]])\.\s|[。\n]", text[:SENTENCE], maxsplit=1)[0]


def is_question(text: str) -> bool:
    """Whether a question mark stands in the rest of a sentence."""
    return QUESTION.search(first_sentence(text)) is not None


def names_others(name: str, tail: str, options: Options) -> bool:
    """Whether a tail names another option before it gives a reason."""
    reason = REASON_LATER.search(tail)
    return bool(options.others(name, tail[: reason.start()] if reason else tail))


def named_by_text(text: str, options: Options) -> str | None:
    """The option whose text a sentence begins with: ``green, like the wall``."""
    sentence = first_sentence(text)
    found = options.text_at_start(sentence)
    if found is None and (name := options.name(sentence.strip(" .:"), may_be_word=True)) and options.texts.get(name):
        found = name, ""
    if found is None or is_question(text) or HEDGE.search(sentence) or NEGATION.match(sentence.replace("no", "yes")):
        return None
    name, rest = found
    is_end = re.match(r"\s*(?:$|[.,;:(\"”}\-–—])", rest) or REASON_NEXT.match(rest)
    return name if is_end and not options.others(name, rest) else None


def is_revoked(text: str, decisions: list[Decision], options: Options) -> bool:
    """Whether a reply takes its last decision back, decides for two options in one sentence, or ends with another
    option."""
    last = decisions[-1]
    rest = text[last.end :]
    if (REVOKED.search(rest) or ALSO_RIGHT.search(rest)) and options.others(last.name, rest):
        return True
    if len(decisions) > 1 and (previous := decisions[-2]).name != last.name:
        between = text[previous.end : last.start]
        if ALSO_RIGHT.search(text[previous.end : last.end + SENTENCE]):
            return True
        if re.search(r"\band\b", between) and not SENTENCE_END.search(between):
            return True
    final = options.name(rest.rpartition("\n")[2], may_be_word=True) if "\n" in rest else None
    return final is not None and final != last.name


# -- lines and mentions ------------------------------------------------------------------------------------------------
def read_lines(text: str, options: Options) -> str | None:
    """The option that a line of a reply is, if no other line is another option. A bare letter counts more than an
    option with its text, which may be one of a list."""
    lines = text.splitlines()
    bare = {name for line in lines if (name := options.letter(line, may_be_word=True))}
    if bare:
        return bare.pop() if len(bare) == 1 else None
    named = [options.name_at_start(line) for line in lines]
    labels = set().union(*map(options.label, lines)) | {name for name in named if name}
    name = named[0] or named[-1]
    return name if name and labels == {name} else None


def read_verdicts(text: str, options: Options) -> set[str]:
    """The options that a list of verdicts calls right: ``Option A: incorrect``, ``Option B: correct``."""
    matches = [match for line in text.splitlines() if (match := VERDICT.fullmatch(line.strip()))]
    is_list = len({letter_of(match) for match in matches}) > 1 and not {"correct", "right", "wrong"} & set(
        options.texts.values()
    )
    return {letter_of(match) for match in matches if is_list and match["verdict"].lower() in RIGHT}


def read_last_sentence(text: str, options: Options) -> str | None:
    """The option that the last sentence of a reply ends with, if it names no other: ``The best match is B.``"""
    sentence = [part for part in SENTENCE_END.split(text) if part and part.strip()][-1].strip()
    match = LAST.fullmatch(sentence)
    is_line = options.name(text.splitlines()[-1], may_be_word=True) is not None  # see read_lines
    if (
        not match
        or is_line
        or CONSIDER.search(sentence)
        or not is_positive(sentence, match.start("bracketed") if match["bracketed"] else match.start("bare"))
    ):
        return None
    name, is_small = letter_of(match), (match["bare"] or "A").islower()
    return name if options.letters_in(sentence) == {name} and not is_small else None


def read_mentions(text: str, options: Options) -> str | None:
    """The only option that a reply names, in brackets or by its text, in a sentence without negation or doubt."""
    if UNABLE.search(text) or ANNOUNCED.search(text):
        return None
    sentences = [part.strip() for part in SENTENCE_END.split(text) if part and part.strip()]
    names: set[str] = set()
    for position, sentence in enumerate(sentences):
        if position and options.label(sentence):  # of a list
            continue
        named, by_text = options.letters_in(sentence, NAMED), options.texts_in(sentence)
        is_doubted = any(
            pattern.search(sentence) for pattern in (NEGATION, HEDGE, CONDITION, ATTRIBUTION, CONSIDER, QUESTION)
        )
        if (named or by_text) and (is_doubted or (named and by_text - named)):
            return read_truth_word(text, options)
        names |= named or by_text
    is_clear = len(names) == 1 and not options.letters_in(text) - names
    return names.pop() if is_clear else read_truth_word(text, options)


def read_truth_word(text: str, options: Options) -> str | None:
    """The option yes or no that a reply begins with."""
    match = TRUTH_WORD.match(text)
    named = [name for name, option in options.texts.items() if match and option == match[1].lower()]
    return named[0] if len(named) == 1 else None
