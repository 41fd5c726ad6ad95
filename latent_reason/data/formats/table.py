"""A table of questions with gold answers: one row a question, in columns that you name.

For data sets that have no format of their own, such as those for reinforcement learning of EasyR1, verl, R1-V and
ms-swift. ``columns`` says which column holds what: ``question=problem,answer=solution,images=images``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import did_you_mean
from ...trace import Image, Message, Text, Trace
from .. import answers, chats, reading, sources
from ..checks import check_checker, check_gold
from ..errors import DataError, Report
from ..pictures import Limits
from ..places import ImageRoots, snapshot_of
from ..reading import Fields
from ..record import TYPES, StoredName, boxed, checked_text

COLUMNS = ("question", "answer", "images", "trace", "id", "task", "split", "level", "system")
PICTURE_COLUMNS = ("images", "image", "jpg", "jpeg", "png", "webp")  # of pictures, if none is named
PICTURE_PATH = re.compile(r"[^\n]{1,400}\.(?:png|jpe?g|webp|gif|bmp)", re.IGNORECASE)
#: signs of other projects for the place of a picture, some with its number: <image_1>, [IMAGE], <ImageHere>
THOUGHTS = re.compile(r"<(think|thinking|SUMMARY|CAPTION|REASONING)>.*?</\1>|\A.*</think(?:ing)?>", re.I | re.S)
AFTER_HASHES = re.compile(r"^[ \t]*####[ \t]*(.+)", re.M)  # as GSM8K writes the answer below its solution


def read(
    source: str | Path,
    image_root: ImageRoots = None,
    report: Report | None = None,
    limits: Limits | None = None,
    *,
    columns: dict[str, str] | None = None,
    checker: str = "same_text",
    answer: str = "refuse",
    unplaced_image: str = "first",
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace: the question, the gold answer and, with a column ``trace``, the reasoning before it.

    ``columns`` maps question, answer, images, trace, id, task, split, level and system to columns of the table. A column
    that is not named is taken if it has that name itself. A dotted name leads into an object or a list:
    ``reward_model.ground_truth``, ``messages.0.content``. The question may also be a list of turns. ``checker`` names
    the rule that grades answers. Without ``split``, the name of the file or of its folder tells the split.
    ``answer``: which one is right if the columns ``answer`` and ``trace`` differ (field, text or refuse).
    ``unplaced_image``: what happens to images without a place in the question (first, drop or refuse).

    Errors: E05 missing column or wrong type, E06 unknown role or part, E10 numbers of places and images differ, E12 a
    picture in a column that is not read, E14 empty question or answer, E17 the answer is not that of the trace, E19 order
    of turns.
    """
    columns = columns or {}
    for name in columns:
        if name not in COLUMNS:
            raise ValueError(f"--columns: a record has no '{name}'. {did_you_mean(name, COLUMNS)}")
    answers.check_side(answer)
    chats.check_options(unplaced_image)
    check_checker(checker)
    source = snapshot_of(Path(source))
    folder = source if source.is_dir() else source.parent
    convert = partial(trace, folder=folder, columns=columns, checker=checker, side=answer, unplaced=unplaced_image)
    return reading.read(source, convert, image_root, report, limits)


def trace(fields: Fields, folder: Path, columns: dict[str, str], checker: str, side: str, unplaced: str) -> Trace:
    """Convert one row."""
    table = Table(fields, columns, folder)
    messages = table.question(unplaced)
    answer, reasoning = table.answer(), table.text("trace")
    if reasoning is not None:
        text = answers.box_answers(reasoning, table.place("trace"))
        messages.append(Message("assistant", (Text(checked_text(text, table.place("trace"))),)))
    elif answer is None:
        is_empty = fields.values.get(table.place("answer")) == ""
        what = "empty. Drop the row or fill it." if is_empty else "missing. Name its column: --columns answer=COLUMN."
        raise DataError("E14", table.place("answer"), what)
    if answer is not None:
        check_gold(answer, checker, table.place("answer"))
    return table.record(messages, answer, table.split(folder), checker, side)


class Table:
    """The columns of one row, by what they hold. Empty cells are null."""

    def __init__(self, fields: Fields, columns: dict[str, str], folder: Path):
        self.named, self.columns = columns, dict(columns)
        if fields.row.file.suffix == ".tar":  # the viewer of the Hub shows the fields of KEY.json below json
            self.columns = {name: path.removeprefix("json.") for name, path in columns.items()}
        found = {self.place(name): self._find(fields.values, name) for name in COLUMNS if name != "images"}
        if "images" not in columns:
            filled = (name for name in PICTURE_COLUMNS if fields.values.get(name) not in (None, "", []))
            self.columns["images"] = next(filled, "images")
        found[self.place("images")] = _references(self._find(fields.values, "images"))
        values = fields.values | {path: None if value == "" else value for path, value in found.items()}
        self.fields = Fields(replace(fields.row, value=values), folder)

    def place(self, name: str) -> str:
        """The column that holds ``name``."""
        return self.columns.get(name, name)

    def _find(self, values: dict, name: str) -> Any:
        """The value of the column for ``name``; None if it is absent and was not named."""
        path = self.place(name)
        value: Any = values
        if path in value:
            return value[path]
        for step in path.split("."):
            if isinstance(value, list) and step.lstrip("-").isdigit() and -len(value) <= int(step) < len(value):
                value = value[int(step)]
            elif isinstance(value, dict) and step in value:
                value = value[step]
            elif name in self.named:
                raise DataError("E05", path, f"there is no such column. {did_you_mean(path, list(values))}")
            else:
                return None
        return value

    def text(self, name: str) -> str | None:
        """A column of text or numbers as text; None if it is null or absent."""
        value = self.fields.take(self.place(name))
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise DataError("E05", self.place(name), f"expected text or a number, found {TYPES[type(value)]}.")
        return self._number(value, name)

    def _number(self, value: int | float, name: str) -> str:
        if isinstance(value, float) and not math.isfinite(value):
            raise DataError("E03", self.place(name), f"{value} is no number. Replace or drop the row.")
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

    def answer(self) -> str | None:
        """The gold answer: what ``<answer>`` or the last box holds, or what stands behind ``####`` or the reasoning."""
        place = self.place("answer")
        value = self.fields.take(place)
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if value is None:
            return None
        if not isinstance(value, str | int | float):
            what = (
                f"expected text or a number, found {TYPES[type(value)]}. Name one answer: --columns answer={place}.0."
            )
            raise DataError("E05", place, what if isinstance(value, list) else what.partition(" Name")[0])
        text = value if isinstance(value, str) else self._number(value, "answer")
        text = THOUGHTS.sub("", text)
        inside = boxed(answers.box_answers(text, place))
        if inside is None and (behind := AFTER_HASHES.findall(text)):
            inside = behind[-1]
        text = (text if inside is None else inside).strip()
        if not text:
            raise DataError("E14", place, "empty. Drop the row or fill it.")
        return text

    def split(self, folder: Path) -> str:
        """The split: by the column, or by the names of the file and its folders."""
        named = self.text("split")
        if named:
            return sources.split_named(named) or named
        split = sources.split_of(self.fields.row.file, folder)
        if split != "train":
            self.fields.row.warn("split", f"the name of the file or its folder says the split {split}")
        return split

    # -- the question --------------------------------------------------------------------------------------------------
    def question(self, unplaced: str) -> list[Message]:
        """The turns before the answer. Images stand at their places, or before the first question."""
        key = self.place("images")
        turns = chats.turns(self.fields, self._chat(), dict.fromkeys(("system", "user"), chats.IMAGE), ends_with="user")
        own = [piece.value for turn in turns for piece in turn.pieces if piece.kind == "image"]
        has_places = any(turn.num_places for turn in turns)
        if own and not has_places and all(one in own for one in self.fields.references(key)):
            self.fields.values[key] = []  # the turns name the same images, as those of Qwen do
        messages = chats.fill_from_column(self.fields, turns, key, unplaced, "refuse")
        if not any(isinstance(part, Image) for message in messages for part in message.content):
            self._check_no_picture_is_left()
        return messages

    def _chat(self) -> list[tuple[Any, str]]:
        """(turn, field) of the turns of the question, without empty system turns."""
        place, system = self.place("question"), self.text("system")
        value = self.fields.take(place)
        if value is None:
            raise DataError(
                "E05", place, "missing, expected text or turns. Name its column: --columns question=COLUMN."
            )
        if isinstance(value, str):
            listed = sources.parse_cell(value)
            value = listed if isinstance(listed, list) and all(isinstance(one, dict) for one in listed) else value
        if isinstance(value, dict):
            value = [value]
        if isinstance(value, list) and not any(
            isinstance(one, dict) and {"role", "from"} & one.keys() for one in value
        ):
            value = [{"role": "user", "content": value}] if any(isinstance(one, dict) for one in value) else value
        if isinstance(value, str):
            chat = [({"role": "user", "content": value}, place)]
        elif isinstance(value, list) and value:
            chat = [(turn, f"{place}[{i}]") for i, turn in enumerate(value)]
        else:
            what = f"expected text or turns, found {TYPES[type(value)]}. Name its column: --columns question=COLUMN."
            raise DataError("E05", place, what)
        if _is_system(chat[0][0]) and not _has_content(chat[0][0]):
            chat = chat[1:]
        if system and not (chat and _is_system(chat[0][0])):
            chat = [({"role": "system", "content": system}, self.place("system")), *chat]
        return chat

    def _check_no_picture_is_left(self) -> None:
        """Raises DataError (E12) if a row without an image has the bytes of one in a column that is not read."""
        for key, value in self.fields.rest().items():
            if _holds_stored(value):
                raise DataError("E12", key, f"holds an image, which is not read. Name it: --columns images={key}.")
            if isinstance(value, str) and PICTURE_PATH.fullmatch(value):
                self.fields.row.warn(
                    "paths", f"'{key}' looks like the path of an image: --columns images={key} reads it"
                )

    def record(self, messages: list[Message], answer: str | None, split: str, checker: str, side: str) -> Trace:
        """The Trace of the row; the columns that hold nothing of it are kept in ``meta``."""
        level, id, task = self.text("level"), self.text("id"), self.text("task")
        if level is not None and not re.fullmatch(r"-?\d+(?:\.0+)?", level):
            raise DataError("E05", self.place("level"), f"expected a whole number, found '{level[:40]}'.")
        made = reading.record(
            self.fields, "table", messages, id=id, answer=answer, task=task, split=split, checker=checker, side=side
        )
        return made if level is None else replace(made, level=int(level.partition(".")[0]))


def _references(value: Any) -> Any:
    """The images of a cell without empty ones: a reference, or a list of these, which may stand in a text."""
    if isinstance(value, str) and isinstance(parsed := sources.parse_cell(value), list | dict):
        value = parsed
    if isinstance(value, list):
        return [one for one in value if not _is_empty(one)]
    return None if _is_empty(value) else value


def _is_empty(reference: Any) -> bool:
    return reference in (None, "") or (isinstance(reference, dict) and not any(reference.values()))


def _is_system(turn: Any) -> bool:
    return isinstance(turn, dict) and turn.get("role", turn.get("from")) == "system"


def _has_content(turn: dict) -> bool:
    content = turn.get("content", turn.get("value"))
    return bool(content.strip() if isinstance(content, str) else content)


def _holds_stored(value: Any) -> bool:
    """Whether a value has the name of bytes that are stored with the row."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, StoredName) or any(map(_holds_stored, children))
