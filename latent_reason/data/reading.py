"""Shared code of format readers: files, fields, turns, answers and the resulting record."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..trace import Image, Message, Part, Sketch, Text, Trace
from .errors import DataError, Report
from .jsonl import decode
from .native import encode
from .packed import LINKED
from .pictures import ImageFolder, Limits
from .places import ImageRoots, Places, list_roots
from .record import TYPES, boxed, check_order, checked_text, get
from .rows import Row, rows
from .sources import list_files, raw_rows

EXTRA_COLUMN = "latent_reason"  # the extra column of our writers for fields that a format lacks
RECORD_FIELDS = ("id", "task", "split", "level", "mode", "answer", "checker", "meta")  # the Trace fields in that column
ROLES = {"system": "system", "human": "user", "gpt": "assistant"}
TOOLS = ("tool", "function", "function_call", "observation")


def read(
    source: str | Path,
    trace: Callable[[Fields], Trace],
    image_root: ImageRoots = None,
    report: Report | None = None,
    limits: Limits | None = None,
    skip_folder: Iterable[str] = (),
) -> Iterator[Trace | DataError]:
    """Convert every row of a data file (sources.py), or of all data files below a folder.

    ``trace`` converts one row. Image paths are relative to the source folder, or the folder of the source file, or to a
    folder of ``image_root``, where they are looked up first. Files in folders whose name contains an entry of
    ``skip_folder`` are skipped. Every yielded Trace is a valid native record. Raises FileNotFoundError if ``source``
    does not exist.
    """
    source = Path(source)
    files = list_files(source, skip_folder)
    folder = source if source.is_dir() else source.parent
    yield from read_files([(file, folder) for file in files], folder, trace, report, limits, list_roots(image_root))


def read_files(
    files: Iterable[tuple[Path, Path]],
    folder: Path,
    trace: Callable[[Fields], Trace],
    report: Report | None = None,
    limits: Limits | None = None,
    named: Iterable[Path] = (),
) -> Iterator[Trace | DataError]:
    """Like ``read``, for pairs of a file and the folder of its images, which may also be below the ``named`` folders.

    All files must be inside ``folder`` or a named folder.
    """
    report = Report() if report is None else report
    ids: dict[str, str] = {}
    stores: dict[Path, ImageFolder] = {}
    named = list(named)
    places = Places(folder, named)

    def checked(row: Row) -> Trace:
        result = trace(Fields(row, folder))
        encode(result, lambda part: "picture")
        return result

    for file, root in files:
        report.count(files=1)
        if not places.contains(file):
            error = DataError("E08", "", LINKED, str(file))
        elif not file.is_file():
            error = DataError("E07", "", "file not found. Correct the path.", str(file))
        else:
            images = stores.setdefault(root, ImageFolder(root, limits, named))
            try:
                raw = raw_rows(file, limits)
            except DataError as file_error:
                error = file_error
            else:
                yield from rows(file, raw, checked, images, ids, report)
                continue
        report.errors.append(error)
        yield error


class Fields:
    """Typed access to the fields of a row. ``rest`` returns the fields that were never read."""

    def __init__(self, row: Row, folder: Path):
        if not isinstance(row.value, dict):
            raise DataError(
                "E05", "record", f"expected an object, found {TYPES[type(row.value)]}. Write one object per row."
            )
        self.row, self.values = row, row.value
        self._asked: set[str] = set()
        self.place = "-".join([*row.file.relative_to(folder).with_suffix("").parts, str(row.number)])

    def get(self, key: str, kind: type, *, optional: bool = False, default: Any = None) -> Any:
        """The value of a field. Raises DataError (E05) if it is missing and not optional, or has another type."""
        self._asked.add(key)
        return get(self.values, key, kind, optional=optional, default=default)

    def take(self, key: str) -> Any:
        """The value of a field of any type; None if it is missing."""
        self._asked.add(key)
        return self.values.get(key)

    def filled(self, key: str) -> str:
        """The text of a field. Raises DataError (E14) if it is blank."""
        text = self.get(key, str)
        if not text.strip():
            raise DataError("E14", key, "empty. Drop the row or fill it.")
        return text

    def name(self, key: str) -> str | None:
        """A string or integer field as a string; None if it is missing."""
        self._asked.add(key)
        value = self.values.get(key)
        if value is None or (isinstance(value, str | int) and not isinstance(value, bool)):
            return None if value is None else str(value)
        raise DataError(
            "E05", key, f"expected a string or a whole number, found {TYPES[type(value)]}. See the format table."
        )

    def paths(self, key: str) -> list[str]:
        """The paths of a field that is a path or a list of paths; empty if it is missing or null."""
        self._asked.add(key)
        value = self.values.get(key)
        paths = [] if value is None else [value] if isinstance(value, str) else value
        if not isinstance(paths, list):
            raise DataError("E05", key, f"expected paths, found {TYPES[type(value)]}. See the format table.")
        for i, path in enumerate(paths):
            if not isinstance(path, str) or not path:
                kind = "an empty string" if path == "" else TYPES[type(path)]
                raise DataError("E05", f"{key}[{i}]", f"expected a path, found {kind}. See the format table.")
        return paths

    def pictures(self, key: str, kind: type[Image] | type[Sketch] = Image) -> list[Image | Sketch]:
        """The images of ``paths(key)``. Raises DataError E07, E08 or E09 for a missing or invalid image."""
        several = isinstance(self.values.get(key), list)
        return [kind(self.row.load(path, f"{key}[{i}]" if several else key)) for i, path in enumerate(self.paths(key))]

    def rest(self) -> dict:
        """The fields that were never read."""
        return {key: value for key, value in self.values.items() if key not in self._asked}


# -- turns -------------------------------------------------------------------------------------------------------------
class Turn(NamedTuple):
    role: str  # system | user | assistant
    text: str
    field: str  # the name of the text field
    value: dict  # the unchanged turn


def turns(
    fields: Fields, key: str, role: str = "from", text: str = "value", roles: dict[str, str] | None = None
) -> list[Turn]:
    """The turns of a chat of plain texts that ends with an answer.

    ``roles`` maps role names of the format to native ones. Raises DataError: E05 wrong type, E06 unknown role, E19
    questions and answers do not alternate.
    """
    roles, result, before = ROLES if roles is None else roles, [], "nothing"
    for i, turn in enumerate(fields.get(key, list)):
        at = f"{key}[{i}]"
        if not isinstance(turn, dict):
            raise DataError("E05", at, f"expected an object, found {TYPES[type(turn)]}. See the format table.")
        named = get(turn, role, str, at=at + ".")
        before = native_role(named, before, f"{at}.{role}", roles)
        result.append(Turn(before, get(turn, text, str, at=at + "."), f"{at}.{text}", turn))
    if before != "assistant":
        raise DataError("E19", key, "no answer turn at the end. Add the answer.")
    return result


def native_role(named: str, before: str, field: str, roles: dict[str, str]) -> str:
    """The native role of ``named``, which follows a turn of role ``before``. Raises DataError E06 or E19."""
    if named in TOOLS:
        raise DataError("E19", field, f"'{named}' turns are not supported. Put their content into other turns.")
    if named not in roles:
        raise DataError("E06", field, f"'{named[:40]}' is no role. Use {', '.join(roles)}.")
    check_order(roles[named], before, field)
    return roles[named]


def insert_images(text: str, field: str, sign: str = "", pictures: Iterable[Part] = ()) -> list[Part]:
    """Split ``text`` at every ``sign`` and insert the next image there. One newline after a sign is removed.

    There must be as many images as signs. Raises DataError: E14 if the result is empty, E18 for a reserved token.
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


def split_at_tag(text: str, tag: str, field: str) -> list[str]:
    """Split ``text`` at a tag: outside, inside, ..., outside. Raises DataError (E05) for unpaired tags."""
    head, *pieces = text.split(f"<{tag}>")
    result = [head]
    for piece in pieces:
        inside, closed, outside = piece.partition(f"</{tag}>")
        result += [inside, outside]
        if not closed:
            raise DataError("E05", field, f"<{tag}> is not closed. Correct the tags.")
    if any(f"</{tag}>" in piece for piece in result):
        raise DataError("E05", field, f"</{tag}> was not opened. Correct the tags.")
    return result


def box_answers(text: str, field: str) -> str:
    """Replace ``<answer> x </answer>`` by ``\\boxed{x}``."""
    return "".join(
        f"\\boxed{{{piece.strip()}}}" if i % 2 else piece for i, piece in enumerate(split_at_tag(text, "answer", field))
    )


def check_counts(num_signs: int, sign: str, where: str, num_entries: int, key: str, field: str) -> None:
    """Raises DataError (E10) if the number of signs differs from the number of entries."""
    if num_signs != num_entries:
        entries = f"{num_entries} entr{'y' if num_entries == 1 else 'ies'} in '{key}'"
        raise DataError("E10", field, f"{num_signs} {sign} in {where}, {entries}. Counts must match.")


def question(fields: Fields, text: str, field: str, key: str) -> Message:
    """A user turn of ``text`` and the images of column ``key``, at their ``<image>``, or first without ``<image>``."""
    pictures = fields.pictures(key)
    if "<image>" in text:
        check_counts(text.count("<image>"), "<image>", "the question", len(pictures), key, field)
        return Message("user", tuple(insert_images(text, field, "<image>", pictures)))
    return Message("user", (*pictures, *insert_images(text, field)))


# -- record ------------------------------------------------------------------------------------------------------------
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
    """The Trace of a row, with a mode derived from its parts, a boxed answer at the end and its source in ``meta``.

    Without ``answer`` the boxed answer is used, if there is one. Rows of our own writers are restored completely.
    Raises DataError: E14 without a final text, E17 if ``answer`` differs from the boxed answer.
    """
    if EXTRA_COLUMN in fields.values:
        values = decode(fields.get(EXTRA_COLUMN, str).encode())
        if not isinstance(values, dict) or sorted(values) != sorted(RECORD_FIELDS):
            raise DataError("E05", EXTRA_COLUMN, f"expected an object of {', '.join(RECORD_FIELDS)}. Drop this column.")
        return Trace(messages=tuple(messages), **values)
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
    boxed_answer = None if end is None else boxed(end.text)
    if answer is not None and boxed_answer is None:
        added = f"\\boxed{{{answer.strip()}}}"
        end = Text(f"{end.text.rstrip()} {added}" if end else added, end.loss if end else None)
        boxed_answer = boxed(added)
        if boxed_answer is None or boxed_answer.strip() != answer.strip():
            raise DataError("E17", "answer", f"'{answer[:80]}' has unbalanced braces. Balance them.")
    if answer is not None and boxed_answer.strip() != answer.strip():
        raise DataError(
            "E17", "answer", f"'{answer[:80]}' but the text boxes '{boxed_answer.strip()[:80]}'. Correct one of them."
        )
    if end is None:
        raise DataError("E14", "answer", "missing: the last turn ends with an image. Add the answer.")
    return (None if boxed_answer is None or not boxed_answer.strip() else boxed_answer.strip()), Message(
        "assistant", (*parts, end)
    )


def _mode(messages: list[Message]) -> str:
    *before, last = messages[-1].content
    sketches = any(isinstance(part, Sketch) for message in messages for part in message.content)
    reasons = any(isinstance(part, Text) for part in before) or bool(last.text.partition("\\boxed{")[0].strip())
    if sketches:
        return "mixed" if reasons else "vision"
    return "text" if before or (reasons and boxed(last.text) is not None) else "direct"
