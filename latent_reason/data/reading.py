"""What readers of other formats share: files, fields, turns, answers, and the record at the end."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..trace import Image, Message, Part, Sketch, Text, Trace
from . import parquet
from .errors import DataError, Report
from .jsonl import decode
from .native import encode
from .pictures import ImageFolder, Limits
from .record import TYPES, boxed, check_order, checked_text, get
from .rows import Row, rows, text_rows

SUFFIXES = (".json", ".jsonl", ".parquet")
OWN = "latent_reason"  # the column of our writers for what the format itself has no place for
HELD = ("id", "task", "split", "level", "mode", "answer", "checker", "meta")  # the fields of a Trace in that column
ROLES = {"system": "system", "human": "user", "gpt": "assistant"}
TOOLS = ("tool", "function", "function_call", "observation")


def read(
    source: str | Path,
    trace: Callable[[Fields], Trace],
    image_root: str | Path | None = None,
    report: Report | None = None,
    limits: Limits | None = None,
    skip_folder: Iterable[str] = (),
) -> Iterator[Trace | DataError]:
    """Every row of a ``.json``, ``.jsonl`` or ``.parquet`` file, or of all of them below a folder, by ``trace``.

    Images are looked for in ``image_root``, by default the source folder or the folder of the source file. Files in
    folders whose name holds a word of ``skip_folder`` are left out. What is yielded as a Trace is a valid native
    record. Raises FileNotFoundError where there is no ``source``.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f"There is no file or folder '{source}'. Correct the path.")
    folder, words = source if source.is_dir() else source.parent, tuple(skip_folder)
    found = (
        [source]
        if source.is_file()
        else sorted(
            file
            for file in source.rglob("*")
            if file.suffix in SUFFIXES
            and file.is_file()
            and not any(word in part for word in words for part in file.relative_to(source).parts[:-1])
        )
    )
    root = folder if image_root is None else Path(image_root)
    yield from read_files([(file, root) for file in found], folder, trace, report, limits)


def read_files(
    files: Iterable[tuple[Path, Path]],
    folder: Path,
    trace: Callable[[Fields], Trace],
    report: Report | None = None,
    limits: Limits | None = None,
) -> Iterator[Trace | DataError]:
    """The same of named files, each with the root of its pictures; ``folder`` holds them all."""
    report, seen = Report() if report is None else report, {}
    stores: dict[Path, ImageFolder] = {}

    def checked(row: Row) -> Trace:
        made = trace(Fields(row, folder))
        encode(made, lambda part: "picture")
        return made

    for file, root in files:
        report.count(files=1)
        if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder)):
            wrong = DataError("E08", "", "leaves the data folder. Move the file inside it.", str(file))
        elif not file.is_file():
            wrong = DataError("E07", "", "there is no such file. Correct the path.", str(file))
        else:
            pictures = stores.setdefault(root, ImageFolder(root, limits))
            try:
                found = parquet.rows(file) if file.suffix == ".parquet" else text_rows(file)
            except DataError as error:
                wrong = error
            else:
                yield from rows(file, found, checked, pictures, seen, report)
                continue
        report.errors.append(wrong)
        yield wrong


class Fields:
    """The fields of a row, which are asked for by name; ``rest`` is what nobody asked for."""

    def __init__(self, row: Row, folder: Path):
        if not isinstance(row.value, dict):
            raise DataError(
                "E05", "record", f"expected an object, found {TYPES[type(row.value)]}. Write one object a row."
            )
        self.row, self.values, self._asked = row, row.value, set()
        self.place = "-".join([*row.file.relative_to(folder).with_suffix("").parts, str(row.number)])

    def get(self, key: str, kind: type, *, optional: bool = False, default: Any = None) -> Any:
        """Raises DataError (E05) for a missing field, unless optional, and for another type."""
        self._asked.add(key)
        return get(self.values, key, kind, optional=optional, default=default)

    def filled(self, key: str) -> str:
        """Text that says something. Raises DataError, E14 where it does not."""
        text = self.get(key, str)
        if not text.strip():
            raise DataError("E14", key, "empty. Drop the row or fill it.")
        return text

    def name(self, key: str) -> str | None:
        """A text or whole number as text, or None."""
        self._asked.add(key)
        value = self.values.get(key)
        if value is None or (isinstance(value, str | int) and not isinstance(value, bool)):
            return None if value is None else str(value)
        raise DataError(
            "E05", key, f"expected a string or a whole number, found {TYPES[type(value)]}. See the format table."
        )

    def paths(self, key: str) -> list[str]:
        """The paths of a path or list of paths; none where it is absent or null."""
        self._asked.add(key)
        value = self.values.get(key)
        found = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(found, list):
            raise DataError("E05", key, f"expected paths, found {TYPES[type(value)]}. See the format table.")
        for i, one in enumerate(found):
            if not isinstance(one, str) or not one:
                kind = "an empty string" if one == "" else TYPES[type(one)]
                raise DataError("E05", f"{key}[{i}]", f"expected a path, found {kind}. See the format table.")
        return found

    def pictures(self, key: str, kind: type[Image] | type[Sketch] = Image) -> list[Image | Sketch]:
        """The pictures of ``paths``. Raises DataError E07, E08 or E09 for one that is not there or unfit."""
        several = isinstance(self.values.get(key), list)
        return [kind(self.row.load(path, f"{key}[{i}]" if several else key)) for i, path in enumerate(self.paths(key))]

    def rest(self) -> dict:
        return {key: value for key, value in self.values.items() if key not in self._asked}


# -- turns -------------------------------------------------------------------------------------------------------------
class Turn(NamedTuple):
    role: str  # system | user | assistant
    text: str
    field: str  # where the text stands
    value: dict  # the turn as it was


def turns(
    fields: Fields, key: str, role: str = "from", text: str = "value", roles: dict[str, str] | None = None
) -> list[Turn]:
    """The turns of a chat of plain texts, in a good order and with an answer at the end.

    ``roles`` maps names of the format to ours. Raises DataError: E05 a wrong type, E06 an unknown role, E19 an order
    that is not question and answer in turn.
    """
    roles, found, before = ROLES if roles is None else roles, [], "nothing"
    for i, turn in enumerate(fields.get(key, list)):
        at = f"{key}[{i}]"
        if not isinstance(turn, dict):
            raise DataError("E05", at, f"expected an object, found {TYPES[type(turn)]}. See the format table.")
        named = get(turn, role, str, at=at + ".")
        before = ordered(named, before, f"{at}.{role}", roles)
        found.append(Turn(before, get(turn, text, str, at=at + "."), f"{at}.{text}", turn))
    if before != "assistant":
        raise DataError("E19", key, "no answer turn at the end. Add the answer.")
    return found


def ordered(named: str, before: str, field: str, roles: dict[str, str]) -> str:
    """Our role for the one ``named``, after a turn of ``before``. Raises DataError E06 or E19."""
    if named in TOOLS:
        raise DataError("E19", field, f"'{named}' turns are not supported. Put their content into other turns.")
    if named not in roles:
        raise DataError("E06", field, f"'{named[:40]}' is no role. Use {', '.join(roles)}.")
    check_order(roles[named], before, field)
    return roles[named]


def filled_in(text: str, field: str, sign: str = "", pictures: Iterable[Part] = ()) -> list[Part]:
    """``text`` in parts, with the next of ``pictures`` at every ``sign``; one line end behind a sign belongs to it.

    There must be as many pictures as signs. Raises DataError: E14 where nothing is said or shown, E18 for a reserved
    token.
    """
    parts, left = [], iter(pictures)
    for i, piece in enumerate(text.split(sign) if sign else [text]):
        if i:
            parts.append(next(left))
            piece = piece.removeprefix("\n")
        if piece.strip():
            parts.append(Text(checked_text(piece, field)))
    if not parts:
        raise DataError("E14", field, "empty. Drop the row or fill it.")
    return parts


def tagged(text: str, tag: str, field: str) -> list[str]:
    """``text`` taken apart at a tag: outside, inside, ..., outside. Raises DataError (E05) for unpaired tags."""
    head, *pieces = text.split(f"<{tag}>")
    found = [head]
    for piece in pieces:
        inside, closed, outside = piece.partition(f"</{tag}>")
        found += [inside, outside]
        if not closed:
            raise DataError("E05", field, f"<{tag}> is not closed. Correct the tags.")
    if any(f"</{tag}>" in piece for piece in found):
        raise DataError("E05", field, f"</{tag}> was not opened. Correct the tags.")
    return found


def box_answers(text: str, field: str) -> str:
    """``<answer> x </answer>`` as our ``\\boxed{x}``."""
    return "".join(
        f"\\boxed{{{piece.strip()}}}" if i % 2 else piece for i, piece in enumerate(tagged(text, "answer", field))
    )


def check_counts(found: int, sign: str, where: str, given: int, key: str, field: str) -> None:
    """Raises DataError (E10) where there are not as many signs as entries."""
    if found != given:
        entries = f"{given} entr{'y' if given == 1 else 'ies'} in '{key}'"
        raise DataError("E10", field, f"{found} {sign} in {where}, {entries}. Counts must match.")


def question(fields: Fields, text: str, field: str, key: str) -> Message:
    """A user turn of ``text`` and the pictures of column ``key``: at their ``<image>``, or first where none is said."""
    pictures = fields.pictures(key)
    if "<image>" in text:
        check_counts(text.count("<image>"), "<image>", "the question", len(pictures), key, field)
        return Message("user", tuple(filled_in(text, field, "<image>", pictures)))
    return Message("user", (*pictures, *filled_in(text, field)))


# -- the record --------------------------------------------------------------------------------------------------------
def record(
    fields: Fields,
    source: str,
    messages: list[Message],
    *,
    id: str | None = None,
    answer: str | None = None,
    task: str | None = None,
    split: str = "train",
    checker: str = "same_text",
    **meta: Any,
) -> Trace:
    """The Trace of a row: its mode as its parts say it, its answer boxed at the end, what it came from in ``meta``.

    Without ``answer`` the boxed one is taken, if any. Rows of our own writers get back all that they were.
    Raises DataError: E14 without a last text, E17 where ``answer`` is not the boxed one.
    """
    if OWN in fields.values:
        held = decode(fields.get(OWN, str).encode())
        if not isinstance(held, dict) or sorted(held) != sorted(HELD):
            raise DataError("E05", OWN, f"expected an object of {', '.join(HELD)}. Drop this column.")
        return Trace(messages=tuple(messages), **held)
    mode = "mixed"
    if messages[-1].role == "assistant":
        answer, last = _boxed_at_the_end(messages[-1], answer)
        messages = [*messages[:-1], last]
        mode = _mode(messages)
    licence = fields.name("licence") or fields.name("license")
    meta = {"source": source, "source_id": id, "licence": licence, **meta, "extra": fields.rest()}
    if meta["extra"]:
        fields.row.warn("extra", f"unknown keys are kept under meta.extra: {', '.join(sorted(meta['extra']))}")
    name = re.sub(r"[^A-Za-z0-9._:-]+", "_", id or fields.place)[-128:]
    return Trace(
        name,
        tuple(messages),
        task or source,
        split,
        None,
        mode,
        answer,
        checker,
        {key: value for key, value in meta.items() if value not in (None, {})},
    )


def _boxed_at_the_end(message: Message, answer: str | None) -> tuple[str | None, Message]:
    parts = list(message.content)
    end = parts.pop() if isinstance(parts[-1], Text) else None
    found = None if end is None else boxed(end.text)
    if answer is not None and found is None:
        added = f"\\boxed{{{answer.strip()}}}"
        end = Text(f"{end.text.rstrip()} {added}" if end else added, end.loss if end else None)
        found = boxed(added)
        if found is None or found.strip() != answer.strip():
            raise DataError("E17", "answer", f"'{answer[:80]}' has a brace without its other. Balance them.")
    if answer is not None and found.strip() != answer.strip():
        raise DataError(
            "E17", "answer", f"'{answer[:80]}' but the text boxes '{found.strip()[:80]}'. Correct one of them."
        )
    if end is None:
        raise DataError("E14", "answer", "missing: the last turn ends with a picture. Add the answer.")
    return (None if found is None or not found.strip() else found.strip()), Message("assistant", (*parts, end))


def _mode(messages: list[Message]) -> str:
    *before, last = messages[-1].content
    sketches = any(isinstance(part, Sketch) for message in messages for part in message.content)
    reasons = any(isinstance(part, Text) for part in before) or bool(last.text.partition("\\boxed{")[0].strip())
    if sketches:
        return "mixed" if reasons else "vision"
    return "text" if before or (reasons and boxed(last.text) is not None) else "direct"
