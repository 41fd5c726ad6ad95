"""Shared code of format writers: write rows and images to a new folder and count what a format cannot store."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from ..files import atomic_folder
from ..trace import Image, Message, Sketch, Text, Trace
from . import labels
from .errors import DataError, Report
from .jsonl import to_line
from .native import encode, options_of
from .pictures import PictureStore
from .reading import EXTRA_COLUMN, RECORD_FIELDS
from .rows import register_id


class Target:
    """A folder that is being written. ``losses`` counts what its format cannot store."""

    def __init__(self, folder: Path):
        self._store = PictureStore(folder)
        self.losses: Counter[str] = Counter()

    def add_image(self, part: Image | Sketch) -> str:
        """Store an image; returns its path relative to the folder."""
        return self._store.add(part.image)

    def count_loss(self, what: str, times: int = 1) -> None:
        """Count ``what`` as lost."""
        self.losses[what] += times

    def chat(self, trace: Trace, system: bool) -> list[Message]:
        """The turns of an answered trace; without ``system``, the system turn is dropped.

        Raises DataError: E19 without an answer, and for records that a native reader rejects.
        """
        encode(trace, lambda part: "picture")
        if trace.messages[-1].role != "assistant":
            raise DataError(
                "E19", "messages", "no assistant turn at the end. This format supports only rows with an answer."
            )
        kept = [message for message in trace.messages if system or message.role != "system"]
        if len(kept) < len(trace.messages):
            self.count_loss("system turn")
        for message in kept:
            for part in message.content:
                if isinstance(part, Text) and part.loss not in (None, float(message.role == "assistant")):
                    self.count_loss("loss of a text")
                for option in options_of(part) if isinstance(part, Sketch) else ():
                    self.count_loss(f"{option} of a sketch")
        return kept


def write(
    traces: Iterable[Trace],
    folder: str | Path,
    name: str,
    row: Callable[[Trace, Target], dict],
    lossy: bool = False,
    report: Report | None = None,
) -> Path:
    """Write ``row(trace)`` of every trace to ``name`` in a new ``folder``, with images in ``img/``, atomically.

    A .json file contains a list, a .jsonl file one row per line. Traces that the format does not support are added to
    ``report`` and skipped; without ``report`` the DataError is raised.

    Raises:
        DataError: E25 if no row is left.
        ValueError: information would be lost and ``lossy`` is false.
        FileExistsError: the folder is not empty.
    """
    target = Path(folder) / name
    ids: dict[str, str] = {}
    prefix, separator, suffix = ("[\n", ",\n", "\n]\n") if name.endswith(".json") else ("", "\n", "\n")
    with atomic_folder(folder) as unfinished:
        place = Target(unfinished)
        with open(unfinished / name, "x", encoding="utf-8", newline="\n") as file:
            file.write(prefix)
            for trace in traces:
                try:
                    line = to_line(row(trace, place))
                    register_id(trace.id, str(target), ids)
                except DataError as error:
                    error.at(f"trace '{trace.id}'", id=trace.id)
                    if report is None:
                        raise
                    report.errors.append(error)
                    continue
                file.write((separator if len(ids) > 1 else "") + line)
            file.write(suffix)
        if not ids:
            raise DataError("E25", "", "there are no traces to write. Pass at least one.", str(target))
        lost = ", ".join(f"{what} ({times})" for what, times in sorted(place.losses.items()))
        if lost and not lossy:
            raise ValueError(f"this format cannot store: {lost}. Nothing was written. Use --lossy to drop these.")
        if lost and report is not None:
            report.warnings.append(f"dropped, because this format cannot store it: {lost}")
    return target


def extra_column(trace: Trace) -> dict:
    """An extra column for the fields that the format lacks, as a JSON string: loaders expect one type per column."""
    return {EXTRA_COLUMN: json.dumps({name: getattr(trace, name) for name in RECORD_FIELDS}, ensure_ascii=False)}


def pictures(message: Message) -> list[Image | Sketch]:
    """The images and sketches of a turn."""
    return [part for part in message.content if not isinstance(part, Text)]


def join_parts(message: Message, sign: str = "<image>") -> str:
    """The text of a turn with ``sign`` in place of every image; ``reading.insert_images`` is the inverse."""
    text = ""
    for part in message.content:
        if isinstance(part, Text):
            text += ("\n" if text.endswith(sign) else "") + part.text
        else:
            text += sign
    if text.count(sign) != len(pictures(message)):
        raise DataError("E18", "messages", f"adjacent texts form the reserved token '{sign}'. Change one.")
    return text


def without_sketches(trace: Trace, target: Target) -> Trace:
    """The trace without its sketches, for formats without sketches. Raises DataError (E14) for a turn without text."""
    if not trace.sketches():
        return trace
    target.count_loss("sketches", len(trace.sketches()))
    return labels.without_sketches(trace)
