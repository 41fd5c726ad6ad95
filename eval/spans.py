"""Where the answer stands in a reply.

The answer span is the first of: the answer of a reply in JSON; the last ``\\boxed{...}``; the last ``<answer>``,
``<final_answer>`` or ``<conclusion>`` with its end; the text after the last ``<Output>``; the text after the last phrase
such as ``the answer is``, ``answer:``, ``####``, ``答案是`` or ``respuesta:``; the whole reply if it has one line; the last
line. Text inside ``<think>...</think>`` does not count, nor does an answer that is not closed.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import NamedTuple

from latent_reason.tasks.checkers import boxed

EXPLICIT_RULES = ("json", "box", "tag", "output")
#: keys of a reply in JSON that hold its answer
ANSWER_KEYS = (
    "final_answer",
    "answer",
    "option",
    "choice",
    "letter",
    "result",
    "count",
    "number",
    "value",
    "label",
    "prediction",
)
REASON_KEY = re.compile(r"reason|expla|rationale|analysis|thought|thinking|evidence", re.IGNORECASE)
LONGEST_JSON = 100_000  # characters
THINKING_END = re.compile(r"</(?:think|thinking|thought)>|◁/think▷|\[/THINK\]", re.IGNORECASE)
THINKING_START = re.compile(r"<(?:think|thinking|thought)>|◁think▷|\[THINK\]", re.IGNORECASE)
TAG = re.compile(r"<(answer|final_answer|conclusion)>(.*?)</\1>", re.DOTALL | re.IGNORECASE)
OPEN_TAG = re.compile(r"\\boxed\s*\{|<(?:answer|final_answer|conclusion)>|<\|begin_of_box\|>", re.IGNORECASE)
#: what chat templates leave in a decoded reply
TEMPLATE_TOKEN = re.compile(
    r"<\|(?:im_start|im_end|end|endoftext|end_of_text|begin_of_text|eot_id|assistant|user|start_header_id"
    r"|end_header_id)\|>|</?s>|<(?:eos|bos|pad|start_of_turn|end_of_turn)>|\[/?INST\]"
)
ROLE = re.compile(r"^[\s#]*(?:assistant|response|model)\s*(?::|\n)\s*", re.IGNORECASE)
EMPHASIS = re.compile(
    r"\*\*|(?<!\w)__(?=[^\W_])([^_\n]+)__(?!\w)|`([^`\n]*)`|(?<![\w)*])\*(?=[^\s*])([^*\n]*[^\s*])\*(?![\w(*])"
)
INVISIBLE = dict.fromkeys((0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0xFE0F))
HTML_EMPHASIS = re.compile(r"</?(?:b|i|u|em|strong|mark)>", re.IGNORECASE)
FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " ", ord("【"): "[", ord("】"): "]"}
LATEX_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|operatorname)\s*\{([^{}]*)\}")
#: "answer" in the languages that models answer in
ANSWER_NOUN = (
    r"(?:\banswers?\b|\bans\b\.?|\b(?:correct|right|best|final|(?:most|more) \w+|my) (?:\w+ )?(?:options?|choices?|letter)\b"
    r"|\brespuesta\b(?: correcta)?|\bréponse\b|\bantwort\b|\brisposta\b|\bresposta\b|\bответ\b|答え|정답|답변"
    r"|答案|答(?=:)|正解|正确的?(?:选项)?(?=是|为|:))"
)
ADVERB = r"(?:(?:most )?likely|(?:most )?probably|clearly|therefore|thus|indeed|simply|definitely|obviously)"
LINK = (
    rf"(?:[\]\"']|\s+to\s+[^.:?\n]{{1,60}}?|,? (?:{ADVERB}|here|then|I \w+),?)?(?:\s*(?:{ADVERB}\s+)?\b(?:is|are|should be|must be|would be|will be|has to be"
    rf"|seems to be|appears to be|es|est|ist|è|é)\b(?:\s+{ADVERB}\b)?\s*:?|\s*(?:应该?)?(?:是|为|选)(?:择)?\s*:?"
    r"|\s*[은는はが]|\s*(?:[:=|→⇒]|->|=>)|\s+[-–—](?=\s)|(?<=\])|(?<=[Aa]ns\.))\s*"
)
CHOOSE_CHINESE = r"(?:(?:^|[,。;\s故应應题我所以此可该該])(?:选择|選擇|[选選])|而是|[应應][该該]?是)[:\s]*"
ANSWER_PHRASE = re.compile(rf".*(?:{ANSWER_NOUN}{LINK}|{CHOOSE_CHINESE}|^#{{4}}\s*)(\S.*)", re.IGNORECASE)
ANSWER_LEAD = re.compile(rf"^(?:the )?{ANSWER_NOUN}{LINK}", re.IGNORECASE)
ANSWER_HEADING = re.compile(rf".*{ANSWER_NOUN}{LINK}|{ANSWER_NOUN}\s*", re.IGNORECASE)


class AnswerSpan(NamedTuple):
    """An answer in a reply. ``rule`` is how it was located: json, box, tag, output, phrase, reply or line."""

    text: str
    rule: str


def strip_thinking(text: str) -> str:
    """A reply without its thinking part; "" if that part does not end."""
    text = THINKING_END.split(text)[-1]
    return "" if THINKING_START.search(text) else text


def clean_reply(text: str) -> str:
    """A reply without its thinking part, tokens of chat templates and markdown. Full-width signs become ASCII."""
    text = TEMPLATE_TOKEN.sub("", strip_thinking(text).translate(INVISIBLE | FULL_WIDTH))
    text = HTML_EMPHASIS.sub("", text)
    text = re.sub(r"^\s*```\w*\s*$", "", ROLE.sub("", text), flags=re.MULTILINE)
    text = EMPHASIS.sub(lambda match: match[1] or match[2] or match[3] or "", text)
    return re.sub(r"^[ \t]*(?:>(?!\s*[\d$.=-])|#{1,3}(?!#)|[-*•→✅✓✔☑](?=\s))[ \t]*", "", text, flags=re.MULTILINE)


def answer_span(text: str) -> AnswerSpan | None:
    """The part of a reply that is its answer; None if there is none."""
    text = clean_reply(text)
    if (inside := boxed(text)) is not None:
        return _make_span(inside, "box")
    if (answer := json_answer(text)) is not None:
        return _make_span(answer, "json")
    if inside := TAG.findall(text):
        return _make_span(inside[-1][1], "tag")
    if OPEN_TAG.search(text):
        return None
    if "<Output>" in text:
        return _make_span(text.rpartition("<Output>")[2], "output")
    lines = join_headings(text)
    for line in reversed(lines):
        if (match := ANSWER_PHRASE.fullmatch(line)) and not line.endswith("?"):
            return _make_span(match[1], "phrase")
    return _make_span(lines[-1], "line" if len(lines) > 1 else "reply") if lines else None


def json_answer(text: str) -> str | None:
    """The answer of a reply that is JSON or ends with an object in JSON: of an object the value of the only key that
    names an answer, of a list the only entry. "" if the JSON has no such answer; None if the reply is no object or list
    in JSON."""
    text = text.strip() if text.lstrip()[:1] == "[" else text[text.find("{") :].strip()
    if text[:1] + text[-1:] not in ("{}", "[]") or len(text) > LONGEST_JSON:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        named = [entry for key, entry in value.items() if key.strip().casefold().replace(" ", "_") in ANSWER_KEYS]
        if not named and not REASON_KEY.search(" ".join(value)):
            return None
        value = named if len({str(entry) for entry in named}) == 1 else []
        if value and isinstance(value[0], list):
            return ", ".join(map(str, value[0]))
    elif len(value) != 1 or not isinstance(value[0], str):
        return None  # a list of numbers, or of several answers
    return str(value[0]) if value and isinstance(value[0], str | int | float) else ""


def join_headings(text: str) -> list[str]:
    """The lines of a text that are not empty. A heading, such as ``Answer:``, is one line with the next."""
    lines: list[str] = []
    for line in (line.strip("* \t|") for line in text.splitlines()):
        if line and lines and ANSWER_HEADING.fullmatch(lines[-1]):
            lines[-1] = f"{lines[-1].rstrip(': ')}: {line}"
        elif line:
            lines.append(line)
    return lines


def _make_span(text: str, rule: str) -> AnswerSpan | None:
    text = text.strip("* \t\n\r")
    if text.count("}") > text.count("{"):  # the end of JSON
        text = text.rstrip('"} ')
    return AnswerSpan(text, rule) if text else None


def strip_markup(text: str) -> str:
    """Text without dollar signs, ``\\text{}`` and similar commands, bold marks and quotes."""
    text = re.sub(r"\\[()\[\]]", "", text.replace("**", "")).replace("\\,", "")
    text = LATEX_TEXT.sub(r"\1", LATEX_TEXT.sub(r"\1", text))
    return text.strip().strip("$`\"'“”").strip()


def plain_text(text: str) -> str:
    """Text in lower case, without outer punctuation, with single spaces."""
    return " ".join(unicodedata.normalize("NFKC", strip_markup(text)).casefold().split()).strip(" .,;:!?()[]\"'。")


def normalize(text: str) -> str:
    """Text in lower case, without leading article and outer punctuation, with single spaces."""
    return re.sub(r"^(?:a|an|the)\s+(?=\S)", "", plain_text(text))
