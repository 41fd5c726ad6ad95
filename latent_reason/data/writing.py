"""What writers of other formats share: a new folder, pictures beside the rows, and what gets lost on the way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from ..files import atomic_folder
from ..trace import Image, Message, Sketch, Text, Trace
from .errors import DataError, Report
from .jsonl import to_line
from .native import encode, options_of
from .pictures import PictureStore
from .reading import HELD, OWN
from .rows import claim


class Target:
    """A folder being written and what its format has no place for: counted in ``losses``."""

    def __init__(self, folder: Path):
        self._store = PictureStore(folder)
        self.losses: Counter[str] = Counter()

    def picture(self, part: Image | Sketch) -> str:
        """Stores a picture; returns its path in the folder."""
        return self._store.add(part.image)

    def lose(self, what: str, times: int = 1) -> None:
        self.losses[what] += times

    def chat(self, trace: Trace, system: bool) -> list[Message]:
        """The turns of a trace, answered to the end; without one of the system where the format has none.

        Raises DataError: E19 without an answer, and what a native reader would refuse.
        """
        encode(trace, lambda part: "picture")
        if trace.messages[-1].role != "assistant":
            raise DataError("E19", "messages", "no assistant turn at the end. This format holds answered rows alone.")
        kept = [message for message in trace.messages if system or message.role != "system"]
        if len(kept) < len(trace.messages):
            self.lose("system turn")
        for message in kept:
            for part in message.content:
                if isinstance(part, Text) and part.loss not in (None, float(message.role == "assistant")):
                    self.lose("loss of a text")
                for option in options_of(part) if isinstance(part, Sketch) else ():
                    self.lose(f"{option} of a sketch")
        return kept


def write(
    traces: Iterable[Trace],
    folder: str | Path,
    name: str,
    row: Callable[[Trace, Target], dict],
    lossy: bool = False,
    report: Report | None = None,
) -> Path:
    """Writes the ``row`` of every trace to ``name`` in a new ``folder``, with ``img/``, whole or not at all.

    A name that ends in .json holds a list, one in .jsonl a row a line. Traces that do not fit are named in ``report``
    and left out, or raised as DataError where there is none; E25 where no row is left. Raises ValueError where
    something would be lost and ``lossy`` is false, FileExistsError where the folder is not empty.
    """
    target, seen = Path(folder) / name, {}
    before, between, after = ("[\n", ",\n", "\n]\n") if name.endswith(".json") else ("", "\n", "\n")
    with atomic_folder(folder) as unfinished:
        place = Target(unfinished)
        with open(unfinished / name, "x", encoding="utf-8", newline="\n") as file:
            file.write(before)
            for trace in traces:
                try:
                    line = to_line(row(trace, place))
                    claim(trace.id, str(target), seen)
                except DataError as error:
                    error.at(f"trace '{trace.id}'", id=trace.id)
                    if report is None:
                        raise
                    report.errors.append(error)
                    continue
                file.write((between if len(seen) > 1 else "") + line)
            file.write(after)
        if not seen:
            raise DataError("E25", "", "there are no traces to write.", str(target))
        lost = ", ".join(f"{what} ({times})" for what, times in sorted(place.losses.items()))
        if lost and not lossy:
            raise ValueError(f"this format has no place for: {lost}. Nothing was written; --lossy goes on without.")
        if lost and report is not None:
            report.warnings.append(f"left out, as this format has no place for it: {lost}")
    return target


def own(trace: Trace) -> dict:
    """The column that keeps what the format has no field for, as text: loaders want one type a column."""
    return {OWN: json.dumps({name: getattr(trace, name) for name in HELD}, ensure_ascii=False)}


def pictures(message: Message) -> list[Image | Sketch]:
    return [part for part in message.content if not isinstance(part, Text)]


def spelled(message: Message, sign: str = "<image>") -> str:
    """The texts of a turn with ``sign`` for every picture, as ``reading.filled_in`` takes it apart again."""
    said = ""
    for part in message.content:
        if isinstance(part, Text):
            said += ("\n" if said.endswith(sign) else "") + part.text
        else:
            said += sign
    if said.count(sign) != len(pictures(message)):
        raise DataError("E18", "messages", f"texts side by side spell the reserved token '{sign}'. Change one.")
    return said


def without_sketches(trace: Trace, target: Target) -> Trace:
    """The words of a trace, for formats that hold no sketch. Raises DataError (E14) for a turn without words."""
    if not trace.sketches():
        return trace
    target.lose("sketches", len(trace.sketches()))
    messages = tuple(Message(m.role, tuple(p for p in m.content if not isinstance(p, Sketch))) for m in trace.messages)
    return replace(trace, messages=messages, mode={"mixed": "text", "vision": "direct"}[trace.mode])
