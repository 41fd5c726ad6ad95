"""Words that take a statement back: negations, conditions, doubts, questions, and what other people say."""

from __future__ import annotations

import re

NEGATION = re.compile(
    r"n['’]t\b|\b(?:not|never|cannot|no|none|neither|nor|without|wrong|incorrect|exclude[sd]?|rather than|instead of"
    r"|unlikely|refuse|reject|disagree|deny|denies|dispute|doubt|doubtful|false|hardly|far from|ruled? out|eliminated?|mistake)\b"
    r"|\b(?:least(?: \w+)?|second|previous|suggested|proposed|alternative|worst|initial|tempting|popular)(?=\s*$|\s+(?:answer|option|choice|letter)\b)|不|错|非|没|无",
    re.IGNORECASE,
)
HEDGE = re.compile(
    r"\b(?:either|whether|could|might|may|maybe|perhaps|possibly|unless|unclear|unsure|depends?|torn|hard to"
    r"|difficult to|impossible|at first|(?:more|less|fewer) than \d|at (?:least|most) \d)\b|可能|或|也许|无法|如果",
    re.IGNORECASE,
)
CONDITION = re.compile(
    r"\b(?:if (?!(?:i|we|you|one) (?:must|had|have|need|were|assume))|whether|unless|provided|in case|had the|were (?:it|the)"
    r"|according to (?:the |my |some )?(?:users?|captions?|people|students?|friends?|authors?|others|him|her|them))\b"
    r"|^\W*when (?!we|i|you|look|compar|view)|可能|如果",
    re.IGNORECASE,
)
THEREFORE = re.compile(r"\b(?:so|therefore|thus|hence)\b", re.IGNORECASE)
#: what somebody else says
ATTRIBUTION = re.compile(
    r"\b(?:people|person|students?|experts?|users?|friends?|teachers?|models?|some|others|many|most|they|he|she|someone|everyone"
    r"|authors?|captions?) (?:\w+ ){0,2}?(?:(?:think|believe|say|claim|argue|assume|suggest|answer"
    r"|choose|pick|guess|insist)s?|thought|said|chose|(?:believ|claim|argu|assum|suggest|answer|pick|guess|insist)ed)\b"
    r"|\bit is (?:\w+ )?(?:said|claimed|believed|thought|assumed)\b",
    re.IGNORECASE,
)
#: what a reply is about to look at
CONSIDER_VERB = (
    r"(?:look(?:ing)? (?:closely )?at|consider(?:ing)?|check(?:ing)?|examin(?:e|ing)|compar(?:e|ing)|(?:start|begin)(?:ning|ing)? with"
    r"|evaluat(?:e|ing)|verify(?:ing)?|analy[sz](?:e|ing)|focus(?:ing)? on|turn(?:ing)? to|go(?:ing)? (?:through|over))\b"
)
CONSIDER = re.compile(
    rf"^(?:(?:first|now|next|then|so|ok|okay)\b,?\s*)*(?:(?:let me|let us|let['’]s|i will|i['’]ll|we)\s+)?(?:\w+ly )?{CONSIDER_VERB}"
    rf"|\b{CONSIDER_VERB}\s+(?:\w+\s+){{0,3}}[(\[]?[A-Z]\b|[A-Z][)\]]?,? (?:only )?(?:mentions?|describes?|refers?|says?|states?|is about)\b"
    r"|^(?:see|in|for|under) (?:option )?[(\[]?[A-Z]\b|^(?:first|next),?\s*[(\[]?[A-Z][)\]]?\W*$",
    re.IGNORECASE,
)
#: a list of the options follows
ANNOUNCED = re.compile(
    rf"\b{CONSIDER_VERB} (?:each|all|every|the)(?: of)?(?: the)? (?:options?|choices)\b", re.IGNORECASE
)
UNABLE = re.compile(
    r"\b(?:(?:need|have) to see|please (?:provide|upload|share|attach)|(?:cannot|can['’]t|can not|unable to) (?:see|view|access)"
    r"|no image)\b",
    re.IGNORECASE,
)
QUESTION = re.compile(r"[?？](?![\w=])")
CLAUSE_END = re.compile(r"[,;:.!?，。；：]\s*|\b(?:but|so|therefore|hence|thus|because|since)\b", re.IGNORECASE)
SENTENCE_END = re.compile(
    r"(?<![\s(\[][A-Za-z0-9])(?<!^[A-Za-z0-9])[.!?]+[\"'”)]*\s+|(?<=[)\]])[.]\s+|[。！？]|\n+", re.MULTILINE
)


SENTENCE = 400  # characters before and after a decision that are looked at


def is_positive(text: str, start: int) -> bool:
    """Whether the words before a decision neither negate it nor make it a condition."""
    sentence = SENTENCE_END.split(text[max(0, start - SENTENCE) : start])[-1]
    clause = CLAUSE_END.split(sentence)[-1]
    return not (
        NEGATION.search(clause)
        or HEDGE.search(clause)
        or ATTRIBUTION.search(clause)
        or CONDITION.search(THEREFORE.split(sentence)[-1])
    )
