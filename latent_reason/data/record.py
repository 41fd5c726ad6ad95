"""Parse one record of the schema ``latent_reason/1`` to a Trace and check all rules of the schema.

A violated rule raises DataError with its code and the field of the record; nothing is guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from PIL.Image import Image as Picture

from ..errors import did_you_mean
from ..trace import Image, Message, Part, Sketch, Text, Trace
from .errors import DataError, list_names

SCHEMA = "latent_reason/1"
SPLIT = re.compile(r"train|val|test|ood-[\w-]+")
MODES = ("direct", "text", "vision", "mixed")
KEYS = ("schema", "id", "task", "split", "level", "mode", "messages", "answer", "checker", "meta")
PART_KEYS = {
    "text": {"type", "text", "loss"},
    "image": {"type", "image"},
    "sketch": {"type", "image", "k", "loss", "state", "redundant", "box"},
}
# Control tokens of chat templates and placeholders of public formats. In plain text they would act as control tokens.
RESERVED = re.compile(
    r"<\|\w+\|>|</?(?:image|video|image_start|image_end|output_image|image_soft_token|start_of_turn|"
    r"end_of_turn|lvr|abs_vis_token)>"
)
# Signs of public formats that are no tokens of any supported model. A system turn may explain them.
EXPLAINED = re.compile(r"</?(?:output_image|lvr|abs_vis_token)>")


class StoredName(str):
    """The name of bytes that are stored with a row, such as those of an image in a parquet file."""


TYPES = {
    StoredName: "bytes",
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}

Load = Callable[[str, str], Picture]  # (name, field) -> image
Warn = Callable[[str, str], None]  # (kind, sentence)


def parse(record: Any, load: Load, warn: Warn) -> Trace:
    """Parse a decoded JSON value to a Trace. ``load`` loads images, ``warn`` reports unknown or ignored keys."""
    if not isinstance(record, dict):
        raise DataError("E05", "record", f"expected an object, found {TYPES[type(record)]}. Write one object per line.")
    schema = get(record, "schema", str)
    if not re.fullmatch(re.escape(SCHEMA) + r"(\.\d+)?", schema):
        raise DataError("E05", "schema", f"'{schema[:40]}' is not '{SCHEMA}'. Convert the file to this version.")
    id = get(record, "id", str)
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", id):
        raise DataError("E05", "id", f"{id[:40]!r} is not 1-128 letters, digits, '.', '_', ':' or '-'. Rename it.")
    split, mode = get(record, "split", str), get(record, "mode", str)
    if not SPLIT.fullmatch(split):
        raise DataError("E05", "split", f"'{split[:40]}' is not train, val, test or ood-<axis>. Correct it.")
    if mode not in MODES:
        raise DataError("E05", "mode", f"'{mode[:40]}' is no mode. {did_you_mean(mode, MODES)}")
    task, level = get(record, "task", str), get(record, "level", int, optional=True)
    answer, checker = get(record, "answer", str, optional=True), get(record, "checker", str, default="same_text")
    meta = get(record, "meta", dict, default={})
    if answer is not None and not answer.strip():
        raise DataError("E14", "answer", "empty. Give the answer, or null where there is none.")
    may_ask = answer is not None or split == "test" or split.startswith("ood-")
    messages = _messages(get(record, "messages", list), may_ask, load, warn)
    _check_sketches(record, messages)
    if messages[-1].role == "assistant":
        _check_mode(mode, messages)
        _check_answer(answer, messages[-1].content[-1])
    extra = {key: value for key, value in record.items() if key not in KEYS and key != "sketches"}
    if extra:
        warn("extra", f"unknown keys are kept under meta.extra: {list_names(extra)}")
        before = meta.get("extra", {})
        meta = {**meta, "extra": {**(before if isinstance(before, dict) else {"extra": before}), **extra}}
    return Trace(id, messages, task, split, level, mode, answer, checker, meta)


def boxed(text: str) -> str | None:
    """Content of the last ``\\boxed{...}`` with balanced braces; None if there is none."""
    start = text.rfind("\\boxed{")
    depth, begin = 1, start + len("\\boxed{")
    if start < 0:
        return None
    for end in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if not depth:
            return text[begin:end]
    return None


def get(record: dict, key: str, kind: type, *, optional: bool = False, default: Any = None, at: str = "") -> Any:
    """The value of a field, with a type check. ``optional`` allows null; ``default`` is used if the field is missing."""
    field, expected = at + key, TYPES[kind]
    if key not in record:
        if optional or default is not None:
            return default
        raise DataError("E05", field, f"missing, expected {expected}. See the format table.")
    value = record[key]
    if value is None and optional:
        return None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise DataError("E05", field, f"expected {expected}, found {TYPES[type(value)]}. See the format table.")
    return value


def _messages(turns: list, may_ask: bool, load: Load, warn: Warn) -> tuple[Message, ...]:
    """The turns of a record, which may end with a question if ``may_ask``."""
    messages, before = [], "nothing"
    for i, turn in enumerate(turns):
        at = f"messages[{i}]"
        if not isinstance(turn, dict):
            raise DataError("E05", at, f"expected an object, found {TYPES[type(turn)]}. See the format table.")
        role = get(turn, "role", str, at=at + ".")
        check_order(role, before, at + ".role")
        if unknown := turn.keys() - {"role", "content"}:
            warn("turn keys", f"unknown keys of a turn are left out: {list_names(unknown)}")
        content = turn.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if not isinstance(content, list):
            found = TYPES[type(content)] if "content" in turn else "nothing"
            raise DataError("E05", at + ".content", f"expected a list of parts, found {found}. See the format table.")
        parts = tuple(_part(part, role, f"{at}.content[{j}]", load, warn) for j, part in enumerate(content))
        if not any(not isinstance(part, Text) or part.text.strip() for part in parts):
            name = {"user": "the question", "assistant": "the trace"}.get(role, "the turn")
            raise DataError("E14", at + ".content", f"empty: {name} has no content. Drop the row.")
        messages.append(Message(role, parts))
        before = role
    if before == "nothing" or before == "system":
        raise DataError("E19", "messages", "there is no user turn. Add the question.")
    if before == "user" and not may_ask:
        raise DataError(
            "E19",
            "messages",
            "no assistant turn at the end, which only records with 'answer' and test items may lack. Add the answer or "
            "correct the split.",
        )
    return tuple(messages)


def check_order(role: str, before: str, field: str) -> None:
    if role in ("tool", "function", "observation"):
        raise DataError("E19", field, f"'{role}' turns are not supported. Put their content into other turns.")
    if role not in ("system", "user", "assistant"):
        raise DataError("E06", field, f"'{role[:40]}' is no role. Use system, user or assistant.")
    if role == before:
        raise DataError("E19", field, f"two {role} turns in a row. Join them.")
    if role == "system" and before != "nothing":
        raise DataError("E19", field, "a system turn that is not the first. Move it to the front.")
    if role == "assistant" and before != "user":
        raise DataError("E19", field, "an assistant turn before any user turn. Begin with the question.")


def _part(part: Any, role: str, at: str, load: Load, warn: Warn) -> Part:
    if not isinstance(part, dict):
        raise DataError("E05", at, f"expected an object, found {TYPES[type(part)]}. See the format table.")
    kind = get(part, "type", str, at=at + ".")
    if kind not in PART_KEYS:
        raise DataError("E06", at + ".type", f"'{kind[:40]}' is no part type. Use text, image or sketch.")
    if kind == "image" and role == "assistant":
        raise DataError(
            "E06", at + ".type", "'image' in an assistant turn. Use 'sketch', or convert with --assistant-image sketch."
        )
    if kind == "sketch" and role != "assistant":
        raise DataError("E06", at + ".type", f"'sketch' in a {role} turn. Use 'image', or move it to the assistant.")
    if kind == "sketch" and part.get("image") is None and isinstance(part.get("latents"), str):
        raise DataError("E05", at + ".image", "null, with stored latents alone. Give the picture they were made from.")
    if unknown := part.keys() - PART_KEYS[kind]:
        warn(kind + " keys", f"unknown keys of a {kind} part are left out: {list_names(unknown)}")
    loss = loss_of(part.get("loss"), at + ".loss")
    if kind == "text":
        return Text(checked_text(get(part, "text", str, at=at + "."), at + ".text", role), loss)
    name = get(part, "image", str, at=at + ".")
    if not name:
        raise DataError("E05", at + ".image", "expected a path, found an empty string. See the format table.")
    if kind == "image":
        return Image(load(name, at + ".image"))
    k = get(part, "k", int, optional=True, at=at + ".")
    if k is not None and k < 1:
        raise DataError("E05", at + ".k", f"{k} latents. Give 1 or more, or null to leave it open.")
    redundant = get(part, "redundant", bool, default=False, at=at + ".")
    return Sketch(
        load(name, at + ".image"),
        k,
        1.0 if loss is None else loss,
        part.get("state"),
        redundant,
        box(part.get("box"), at + ".box"),
    )


def checked_text(text: str, field: str, role: str = "user") -> str:
    """The text. Raises DataError: E14 if it is empty, E18 for a reserved token."""
    if not text:
        raise DataError("E14", field, "empty. Drop the part or fill it.")
    token = RESERVED.search(EXPLAINED.sub("", text) if role == "system" else text)
    if token:
        raise DataError("E18", field, f"contains the reserved token '{token[0][:40]}'. Remove or escape it.")
    return text


def loss_of(value: Any, field: str) -> float | None:
    """A loss weight in [0, 100]; true and false are 1 and 0."""
    if value is None:
        return None
    if not isinstance(value, int | float) or not 0 <= value <= 100:
        raise DataError("E05", field, "expected true, false or a weight in 0-100. See the format table.")
    return float(value)


def box(value: Any, field: str) -> tuple[float, float, float, float] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 4 or any(type(x) not in (int, float) for x in value):
        raise DataError("E15", field, "expected 4 numbers [x0, y0, x1, y1]. Correct or drop it.")
    if not all(math.isfinite(x) and 0 <= x <= 1 for x in value):
        raise DataError("E15", field, f"{value} is not in 0-1. Divide by the image size or give --box-unit pixel.")
    x0, y0, x1, y1 = value
    if x1 <= x0 or y1 <= y0:
        raise DataError("E15", field, f"{value} holds no area: x0 < x1 and y0 < y1 are needed. Swap the corners.")
    return (float(x0), float(y0), float(x1), float(y1))


def _check_sketches(record: dict, messages: tuple[Message, ...]) -> None:
    """Check the optional field ``sketches``, the number of sketches, to detect rows that lost one."""
    expected = get(record, "sketches", int, optional=True)
    num_sketches = sum(isinstance(part, Sketch) for message in messages for part in message.content)
    if expected is not None and expected != num_sketches:
        parts = f"{num_sketches} sketch part{'s' * (num_sketches != 1)}"
        raise DataError("E10", "sketches", f"{expected} announced, {parts} in the messages. Counts must match.")


def _check_mode(mode: str, messages: tuple[Message, ...]) -> None:
    """Check the mode against the last assistant turn, whose last part is the answer, and the sketches of all turns."""
    *before, last = messages[-1].content
    if not isinstance(last, Text):
        raise DataError(
            "E14",
            f"messages[{len(messages) - 1}].content",
            "ends with a sketch, the answer is missing. End with a text part.",
        )
    sketches = sum(isinstance(part, Sketch) for message in messages for part in message.content)
    text_part = next((i for i, part in enumerate(before) if isinstance(part, Text) and part.text.strip()), None)
    has_reasoning = text_part is not None or bool(last.text.partition("\\boxed{")[0].strip())
    problem = None
    if mode in ("direct", "text") and sketches:
        problem = (
            f"but there {'is a sketch' if sketches == 1 else f'are {sketches} sketches'}. Set mode mixed or vision."
        )
    elif mode == "direct" and before:
        problem = f"but the answer turn has {len(before) + 1} parts. Set mode text, or keep the answer alone."
    elif mode == "text" and not has_reasoning:
        problem = "but there is no text before the answer. Set mode direct."
    elif mode in ("vision", "mixed") and not sketches:
        problem = "but there is no sketch. Set mode text or direct."
    elif mode == "vision" and text_part is not None:
        problem = f"but part {text_part} is text. Set mode mixed."
    elif mode == "mixed" and not has_reasoning:
        problem = "but there is no reasoning text. Set mode vision."
    if problem:
        raise DataError("E16", "mode", f"'{mode}' {problem}")


def _check_answer(answer: str | None, last: Part) -> None:
    if answer is None:
        return
    boxed_answer = boxed(last.text)
    if boxed_answer is not None and boxed_answer.strip() == answer.strip():
        return
    if last.text.rstrip().endswith(f"\\boxed{{{answer.strip()}}}"):  # code with unbalanced braces
        return
    if boxed_answer is None:
        what = "the last text boxes nothing. End it with \\boxed{...}."
    else:
        what = f"the text boxes '{boxed_answer.strip()[:80]}'. Correct one of them."
    raise DataError("E17", "answer", f"'{answer[:80]}' but {what}")
