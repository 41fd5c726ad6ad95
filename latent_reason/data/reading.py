"""Shared code of format readers: files, fields, turns, answers and the resulting record."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL.Image import Image as Picture

from ..trace import Image, Message, Part, Sketch, Text, Trace
from . import answers, formats
from .errors import DataError, Report, list_names
from .jsonl import decode
from .native import encode
from .packed import LINKED
from .pictures import ImageFolder, Limits
from .places import ImageRoots, Places, list_roots, snapshot_of
from .record import TYPES, Warn, checked_text, get
from .rows import Row, one_error_of_kind, rows
from .sources import list_files, raw_rows

EXTRA_COLUMN = "latent_reason"  # the extra column of our writers for fields that a format lacks
REFERENCES = ("bytes", "url", "path", "image", "image_url", "data")  # keys of an object that refers to an image
BASE64_STARTS = ("iVBORw0KGgo", "/9j/", "UklGR")  # of PNG, JPEG and WebP
#: what stands for an image in other projects, and its number
FOREIGN_SIGN = re.compile(
    r"(?i:<(?:image|img|imagehere|image_placeholder|image_token|img_context|\|image_?\|)>"
    r"|\[image\]|[<\[]\|?(?:image|img)[ _-]?(\d{1,3})\|?[>\]])"
)
LIKE_HTML = ("<img>", "[image]")  # may be words about something else
RECORD_FIELDS = ("id", "task", "split", "level", "mode", "answer", "checker", "meta")  # the Trace fields in that column


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
    source = snapshot_of(Path(source))
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
    times: Counter[str] = Counter()
    stores: dict[Path, ImageFolder] = {}
    named = list(named)
    places = Places(folder, named)

    columns: list[str] = []  # those of the last row

    def checked(row: Row) -> Trace:
        columns[:] = row.value if isinstance(row.value, dict) else []
        try:
            result = trace(Fields(row, folder))
        except DataError as error:
            raise _name_rows(error, row.value) from None
        encode(result, lambda part: "picture")
        return with_unique_id(result, ids, times, row.warn)

    for file, root in files:
        report.count(files=1)
        if not places.contains(file):
            error = DataError("E08", "", LINKED, str(file))
        elif not file.is_file():
            error = DataError("E07", "", "file not found. Correct the path.", str(file))
        else:
            if root not in stores:
                stores[root] = ImageFolder(root, limits, named)
            try:
                raw = raw_rows(file, limits)
            except DataError as file_error:
                error = file_error
            else:
                results = rows(file, raw, checked, stores[root], ids, report)
                yield from one_error_of_kind(results, file, report, lambda: formats.describe(columns))
                continue
        report.errors.append(error)
        yield error


def _name_rows(error: DataError, value: Any) -> DataError:
    """The error, or another one if the rows are in a list that the value holds."""
    if error.code != "E05" or not error.what.startswith("missing") or not isinstance(value, dict):
        return error
    for key, inner in value.items():
        if isinstance(inner, list) and inner and isinstance(inner[0], dict) and error.field in inner[0]:
            what = f"the rows are in its key '{key}' ({len(inner)}). Write this list to a file of its own."
            return DataError("E05", "record", what)
    return error


def with_unique_id(trace: Trace, ids: Container[str], times: Counter[str], warn: Warn) -> Trace:
    """The trace with another id if its id is in ``ids``. Ids of other projects need not be unique; the original one is
    ``meta.source_id``. ``times`` counts the traces of each id."""
    times[trace.id] += 1
    if trace.id not in ids:
        return trace
    warn("id", f"id '{trace.id}' is used again; ids are made unique, the original is meta.source_id")
    times[trace.id] = max(times[trace.id], 2)
    while (name := f"{trace.id[-110:]}-{times[trace.id]}") in ids:
        times[trace.id] += 1
    return replace(trace, id=name, meta={"source_id": trace.id} | trace.meta)


class Fields:
    """Typed access to the fields of a row. ``rest`` returns the fields that were never read."""

    def __init__(self, row: Row, folder: Path):
        if not isinstance(row.value, dict):
            found = TYPES[type(row.value)]
            if isinstance(row.value, list) and row.value and isinstance(row.value[0], dict):
                found = f"a list of {len(row.value)} (packed rows?)"
            raise DataError("E05", "record", f"expected an object, found {found}. Write one object per row.")
        self.row, self.values = row, row.value
        self._asked: set[str] = set()
        self.place = "-".join([*row.file.relative_to(folder).with_suffix("").parts, str(row.number)])

    def get(self, key: str, kind: type, *, optional: bool = False, default: Any = None) -> Any:
        """The value of a field. Raises DataError (E05) if it is missing and not optional, or has another type."""
        self._asked.add(key)
        if default is not None and not self.has(key):
            return default
        return get(self.values, key, kind, optional=optional, default=default)

    def has(self, key: str) -> bool:
        """Whether the row has this field. Null is none: tables have it where a row of another kind has a value."""
        return self.values.get(key) is not None

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

    def answer(self, key: str) -> str:
        """An answer as text: a string, a number, true or false, or a list of one of these.

        Raises DataError: E05 if it is missing or another value, E14 if it is blank.
        """
        value = self.take(key)
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if value is None:
            raise DataError("E05", key, "missing, expected an answer. See the format table.")
        if not isinstance(value, str | int | float):
            raise DataError("E05", key, f"expected one answer, found {TYPES[type(value)]}. Write it as text.")
        text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
        if not text.strip():
            raise DataError("E14", key, "empty. Drop the row or fill it.")
        return text

    def optional_answer(self, key: str) -> str | None:
        """Like ``answer``; None if it is missing or blank."""
        value = self.take(key)
        is_blank = value is None or (isinstance(value, str) and not value.strip())
        return None if is_blank else self.answer(key)

    def name(self, key: str) -> str | None:
        """A string or whole number as a string; None if it is missing."""
        self._asked.add(key)
        value = self.values.get(key)
        if isinstance(value, float) and value.is_integer():  # tables write numbers so if one of them is missing
            value = int(value)
        if value is None or (isinstance(value, str | int) and not isinstance(value, bool)):
            return None if value is None else str(value)
        raise DataError(
            "E05", key, f"expected a string or a whole number, found {TYPES[type(value)]}. See the format table."
        )

    def column(self, *keys: str) -> str:
        """The first of ``keys`` that the row has, else the first."""
        return next((key for key in keys if self.values.get(key) is not None), keys[0])

    def references(self, key: str) -> list[Any]:
        """The references of a field that is an image or a list of images; empty if it is missing, null or blank. See
        ``load``."""
        self._asked.add(key)
        value = self.values.get(key)
        references = value if isinstance(value, list) else [value]
        if all(reference is None or reference == "" for reference in references):
            return []
        for i, reference in enumerate(references):
            if not isinstance(reference, str | dict) or not reference:
                kind = "an empty string" if reference == "" else TYPES[type(reference)]
                field = f"{key}[{i}]" if isinstance(value, list) else key
                raise DataError("E05", field, f"expected a path, found {kind}. See the format table.")
        return references

    def load(self, reference: Any, field: str) -> Picture:
        """The image of a reference: a path, a data URL, base64 text, or an object with ``bytes``, ``url``, ``path``, ...

        Raises DataError: E05 for another value, E07, E08 or E09 for a missing or invalid image.
        """
        while isinstance(reference, dict):
            key = next((key for key in REFERENCES if reference.get(key)), None)
            if key is None:
                raise DataError("E05", field, f"an object without {' or '.join(REFERENCES)}. See the format table.")
            reference, field = reference[key], f"{field}.{key}"
        if not isinstance(reference, str) or not reference:
            kind = "an empty string" if reference == "" else TYPES[type(reference)]
            raise DataError("E05", field, f"expected a path, found {kind}. See the format table.")
        encoded = reference[:60].startswith("data:") or reference.startswith(BASE64_STARTS)
        if not encoded or len(reference) < 60:  # no image is so small
            return self.row.load(reference, field)
        try:
            data = base64.b64decode("".join(reference.rpartition(",")[2].split()), validate=True)
        except ValueError:
            raise DataError("E09", field, "the base64 text of the image is damaged. Replace it.") from None
        return self.row.decode(data, f"{reference[:24]}...", field)

    def pictures(self, key: str, kind: type[Image] | type[Sketch] = Image) -> list[Image | Sketch]:
        """The images of ``references(key)``. Raises DataError E05, E07, E08 or E09 for a missing or invalid image."""
        several = isinstance(self.values.get(key), list)
        return [kind(self.load(one, f"{key}[{i}]" if several else key)) for i, one in enumerate(self.references(key))]

    def rest(self) -> dict:
        """The fields that were never read."""
        return {key: value for key, value in self.values.items() if key not in self._asked and value is not None}


# -- texts -------------------------------------------------------------------------------------------------------------
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


def check_counts(
    num_signs: int,
    sign: str,
    where: str,
    num_entries: int,
    key: str,
    field: str,
    remedy: str = "Counts must match.",
) -> None:
    """Raises DataError (E10) if the number of signs differs from the number of entries."""
    if num_signs != num_entries:
        entries = f"{num_entries} entr{'y' if num_entries == 1 else 'ies'} in '{key}'"
        raise DataError("E10", field, f"{num_signs} {sign} in {where}, {entries}. {remedy}")


def in_order(named: Sequence[Any], sign: str, where: str, num_images: int, key: str, field: str) -> list[int]:
    """The index of an image for every place. ``named``: the number that each place has; all None: in their order.

    Numbers begin with 0 or 1. One may occur again, but each image of column ``key`` needs a place. Raises DataError
    (E10) for other numbers, or if there are no numbers and those of places and images differ.
    """
    is_numbered = any(number is not None for number in named)
    if not is_numbered or len({str(number) for number in named}) != num_images:
        check_counts(len(named), sign, where, num_images, key, field)
    if not is_numbered:
        return list(range(len(named)))
    try:
        numbers = [int(number) for number in named]
    except (TypeError, ValueError):
        numbers = []
    first = min(numbers, default=0)
    if first not in (0, 1) or set(numbers) != set(range(first, first + num_images)):
        found = ", ".join("none" if number is None else str(number)[:20] for number in named[:8])
        what = f"the numbers of images are {found}, but '{key}' has {num_images}. Count them from 0, in each place."
        raise DataError("E10", field, what)
    return [number - first for number in numbers]


def question(fields: Fields, text: str, field: str, key: str) -> Message:
    """A user turn of ``text`` and the images of column ``key``, at their ``<image>``, or first without ``<image>``."""
    return place_question(text, field, fields.pictures(key), key)


def place_question(text: str, field: str, images: Sequence[Part], key: str) -> Message:
    """Like ``question``, for images that have been loaded."""
    if "<image>" in text:
        check_counts(text.count("<image>"), "<image>", "the question", len(images), key, field)
        return Message("user", tuple(insert_images(text, field, "<image>", images)))
    return Message("user", (*images, *insert_images(text, field)))


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
    side: str = "refuse",
    **meta: Any,
) -> Trace:
    """The Trace of a row, with a mode derived from its parts, a boxed answer at the end and its source in ``meta``.

    Without ``answer`` the boxed answer is used, if there is one; if the two differ, ``side`` says which one is right
    (see ``answers.end_with_answer``). Rows of our own writers are restored completely. Raises DataError: E14 without a
    final text, E17 if ``answer`` differs from the boxed answer.
    """
    if EXTRA_COLUMN in fields.values:
        values = decode(fields.get(EXTRA_COLUMN, str).encode())
        if not isinstance(values, dict) or sorted(values) != sorted(RECORD_FIELDS):
            raise DataError("E05", EXTRA_COLUMN, f"expected an object of {', '.join(RECORD_FIELDS)}. Drop this column.")
        return Trace(messages=tuple(messages), **values)
    _check_signs(messages)
    mode = "mixed"
    if messages[-1].role == "assistant":
        given, (answer, last) = answer, answers.end_with_answer(messages[-1], answer, side)
        messages = [*messages[:-1], last]
        mode = answers.mode_of(messages)
        if given is not None and answer != given.strip():
            meta["source_answer"] = given
    licence = fields.name("licence") or fields.name("license")
    meta = {"source": source, "source_id": id, "licence": licence, **meta, "extra": fields.rest()}
    if meta["extra"]:
        fields.row.warn("extra", f"unknown keys are kept under meta.extra: {list_names(meta['extra'])}")
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


def _check_signs(messages: list[Message]) -> None:
    """Raises DataError (E18) if a text beside images has a sign of another project."""
    parts = [part for message in messages for part in message.content]
    if not any(isinstance(part, Image) for part in parts):
        return
    for text in (part.text for part in parts if isinstance(part, Text)):
        for found in FOREIGN_SIGN.finditer(text):
            if found[0].lower() not in LIKE_HTML:
                what = (
                    f"'{found[0]}' stands for an image and would be taught as text. Write it in words, or as <image>."
                )
                raise DataError("E18", "record", what)
