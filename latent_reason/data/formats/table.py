"""A table of questions with gold answers: one row a question, in columns that you name.

For data sets that have no format of their own, such as those for reinforcement learning of EasyR1, verl, R1-V and
ms-swift. ``columns`` says which column holds what: ``question=problem,answer=solution,images=images``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import did_you_mean
from ...trace import Image, Message, Text, Trace
from .. import answers, reading, sources
from ..errors import DataError, Report
from ..jsonl import decode
from ..pictures import Limits
from ..places import ImageRoots
from ..reading import Fields
from ..record import TYPES, boxed, check_order, checked_text, get

COLUMNS = ("question", "answer", "images", "trace", "id", "task", "split", "level", "system")


def read(
    source: str | Path,
    image_root: ImageRoots = None,
    report: Report | None = None,
    limits: Limits | None = None,
    *,
    columns: dict[str, str] | None = None,
    checker: str = "same_text",
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace: the question, the gold answer and, with a column ``trace``, the reasoning before it.

    ``columns`` maps question, answer, images, trace, id, task, split, level and system to columns of the table. A column
    that is not named is taken if it has that name itself. A dotted name leads into an object or a list:
    ``reward_model.ground_truth``, ``messages.0.content``. The question may also be a list of turns. ``checker`` names
    the rule that grades answers. Without ``split``, the name of the file or of its folder tells the split.

    Errors: E05 missing column or wrong type, E10 numbers of ``<image>`` and images differ, E14 empty question or
    answer, E17 the answer is not that of the trace, E19 order of turns.
    """
    columns = columns or {}
    for name in columns:
        if name not in COLUMNS:
            raise ValueError(f"--columns: a record has no '{name}'. {did_you_mean(name, COLUMNS)}")
    source = Path(source)
    folder = source if source.is_dir() else source.parent
    convert = partial(trace, folder=folder, columns=columns, checker=checker)
    return reading.read(source, convert, image_root, report, limits)


def trace(fields: Fields, folder: Path, columns: dict[str, str], checker: str) -> Trace:
    """Convert one row."""
    table = Table(fields, columns)
    messages = table.question()
    answer, reasoning = table.answer(), table.text("trace")
    if reasoning is not None:
        text = answers.box_answers(reasoning, table.place("trace"))
        messages.append(Message("assistant", (Text(checked_text(text, table.place("trace"))),)))
    elif answer is None:
        raise DataError("E14", table.place("answer"), "missing. Name its column: --columns answer=COLUMN.")
    split = table.text("split")
    split = sources.SPLIT_WORDS.get(split, split) if split else sources.split_of(fields.row.file, folder)
    return table.record(messages, answer, split, checker)


class Table:
    """The columns of one row, by what they hold."""

    def __init__(self, fields: Fields, columns: dict[str, str]):
        self.fields, self.columns = fields, columns

    def place(self, name: str) -> str:
        """The column that holds ``name``."""
        return self.columns.get(name, name)

    def value(self, name: str) -> Any:
        """The value of the column for ``name``; None if it is null, or if it is absent and was not named."""
        path = self.place(name)
        if self.fields.row.file.suffix == ".tar":  # the viewer of the Hub shows the fields of KEY.json below json
            path = path.removeprefix("json.")
        value: Any = self.fields.values
        if path in value:
            return self.fields.take(path)
        for step in path.split("."):
            if isinstance(value, list) and step.lstrip("-").isdigit() and -len(value) <= int(step) < len(value):
                value = value[int(step)]
            elif isinstance(value, dict) and step in value:
                value = value[step]
            elif name in self.columns:
                known = list(self.fields.values)
                raise DataError("E05", path, f"there is no such column. {did_you_mean(path, known)}")
            else:
                return None
        return value

    def text(self, name: str) -> str | None:
        """A column of text or numbers as text; None if it is null or absent."""
        value = self.value(name)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError("E05", self.place(name), f"expected text or a number, found {TYPES[type(value)]}.")
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

    def answer(self) -> str | None:
        """The gold answer: what ``<answer>`` or the last box holds, else the whole text."""
        text = self.text("answer")
        if text is None:
            return None
        place = self.place("answer")
        inside = boxed(answers.box_answers(text, place))
        text = (text if inside is None else inside).strip()
        if not text:
            raise DataError("E14", place, "empty. Drop the row or fill it.")
        return text

    def images(self) -> list[Image]:
        """The images of the row: a path, bytes, or a list of these."""
        value, place = self.value("images"), self.place("images")
        if isinstance(value, str) and value.startswith("["):  # a list in a cell of a CSV file
            value = decode(value.encode())
        entries = [] if value in (None, "") else value if isinstance(value, list) else [value]
        images = []
        for i, entry in enumerate(entries):
            at = f"{place}[{i}]" if isinstance(value, list) else place
            if isinstance(entry, dict):  # {"image": path}, as verl writes it, or {"bytes": null, "path": path}
                entry = next((entry[key] for key in ("image", "path", "url") if isinstance(entry.get(key), str)), None)
            if not isinstance(entry, str) or not entry:
                raise DataError("E05", at, f"expected a path or bytes, found {TYPES[type(entry)]}.")
            images.append(Image(self.fields.row.load(entry, at)))
        return images

    def question(self) -> list[Message]:
        """The turns before the answer. Images stand at their ``<image>``, or before the first question."""
        value, place, images = self.value("question"), self.place("question"), self.images()
        turns = [{"role": "user", "content": value}] if isinstance(value, str) else value
        if not isinstance(turns, list) or not turns:
            what = f"expected text or turns, found {TYPES[type(value)]}. Name its column: --columns question=COLUMN."
            raise DataError("E05", place, what)
        system = self.text("system")
        if system and not (isinstance(turns[0], dict) and turns[0].get("role") == "system"):
            turns = [{"role": "system", "content": system}, *turns]
        texts = [self._turn(turn, f"{place}[{i}]" if turns is value else place) for i, turn in enumerate(turns)]
        num_signs = sum(text.count("<image>") for _, text, _ in texts)
        if num_signs:
            reading.check_counts(
                num_signs, "<image>", "the question", len(images), self.place("images"), place.partition("[")[0]
            )
        remaining, messages, before = iter(images), [], "nothing"
        for role, text, at in texts:
            check_order(role, before, at)
            sign = "<image>" if num_signs else ""
            parts = reading.insert_images(text, at, sign, remaining)
            if role == "user" and not num_signs:
                parts = [*remaining, *parts]
            messages.append(Message(role, tuple(parts)))
            before = role
        if before != "user":
            raise DataError("E19", place, "does not end with a question. Use another format, such as sharegpt or trl.")
        return messages

    def _turn(self, turn: Any, at: str) -> tuple[str, str, str]:
        """Role, text with ``<image>`` in place of images, and field of a turn."""
        if not isinstance(turn, dict):
            raise DataError("E05", at, f"expected a turn of role and content, found {TYPES[type(turn)]}.")
        role, content = get(turn, "role", str, at=at + "."), turn.get("content")
        if isinstance(content, list):
            parts = [part if isinstance(part, dict) else {} for part in content]
            content = "".join(
                "<image>" if part.get("type") == "image" else str(part.get("text") or "") for part in parts
            )
        if not isinstance(content, str):
            raise DataError("E05", f"{at}.content", f"expected text or parts, found {TYPES[type(content)]}.")
        if not content.strip():
            raise DataError("E14", at, "empty. Drop the row or fill it.")
        return role, content, at

    def record(self, messages: list[Message], answer: str | None, split: str, checker: str) -> Trace:
        """The Trace of the row; the columns that hold nothing of it are kept in ``meta``."""
        level, id, task = self.text("level"), self.text("id"), self.text("task")
        if level is not None and not re.fullmatch(r"-?\d+", level):
            raise DataError("E05", self.place("level"), f"expected a whole number, found '{level[:40]}'.")
        made = reading.record(
            self.fields, "table", messages, id=id, answer=answer, task=task, split=split, checker=checker
        )
        return made if level is None else replace(made, level=int(level))
