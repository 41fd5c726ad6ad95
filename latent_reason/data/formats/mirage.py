"""Mirage (arXiv 2506.17218): JSON lines of one question, one sketch at ``<output_image>``, one answer.

Rows of the planning test have no answer but a map: 1 the start, 2 the goal, -1 a hole, 0 ice. Paths of the source are
relative to the folder it is run in: give ``image_root``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...trace import Message, Sketch, Trace
from .. import reading, writing
from ..errors import DataError, Report
from ..pictures import Limits
from ..reading import Fields
from ..record import boxed
from ..writing import Target

SIGN = "<output_image>"
CELLS = {1: "S", 2: "G", -1: "H", 0: "F"}


def read(
    source: str | Path, image_root: str | Path | None = None, report: Report | None = None, limits: Limits | None = None
) -> Iterator[Trace | DataError]:
    """Every row as a Trace; those with a map and no answer as test items.

    Errors: E05 a map that is none, E10 not one ``<output_image>`` or a wrong number of ``<image>``, E14 an empty text.
    """
    return reading.read(source, trace, image_root, report, limits)


def trace(fields: Fields, source: str = "mirage") -> Trace:
    """Also of the older rows of ILVR, which are of this format."""
    asked = reading.question(fields, fields.filled("text_input"), "text_input", "image_input")
    if "map_desc" in fields.values and "text_output" not in fields.values:
        rows = board(fields)
        return reading.record(
            fields, source, [asked], id=fields.name("map_id"), split="test", checker="mirage", state={"map": rows}
        )
    text = fields.filled("text_output")
    if text.count(SIGN) != 1:
        raise DataError("E10", "text_output", f"{text.count(SIGN)} {SIGN}, expected 1. Mark the place of the sketch.")
    sketch = Sketch(fields.row.load(fields.get("image_output", str), "image_output"))
    told = Message("assistant", tuple(reading.filled_in(text, "text_output", SIGN, iter([sketch]))))
    return reading.record(fields, source, [asked, told], checker=checker(text))


def checker(text: str) -> str:
    """Moves are checked as a plan, a letter A to C as a choice, anything else as it stands."""
    answer = boxed(text) or ""
    if re.fullmatch(r"\W*[ABC]\W*", answer):
        return "mirage_check"
    return "mirage" if re.fullmatch(r"\W*([UDLR]\W*)+", answer) else "same_text"


def board(fields: Fields) -> list[str]:
    """The map as rows of S, G, H and F. Raises DataError (E05) for what is no map."""
    cells = fields.get("map_desc", list)

    def wrong(what: str) -> DataError:
        return DataError("E05", "map_desc", f"{what}. Use rows of equal length of 1 (start), 2 (goal), -1 (hole), 0.")

    if not cells or not all(isinstance(row, list) and len(row) == len(cells[0]) for row in cells):
        raise wrong("the rows are no lists of one length")
    if strange := [cell for row in cells for cell in row if type(cell) is not int or cell not in CELLS]:
        raise wrong(f"holds {str(strange[0])[:20]!r}")
    found = Counter(cell for row in cells for cell in row)
    if found[1] != 1 or found[2] != 1:
        raise wrong(f"has {found[1]} x start and {found[2]} x goal, expected one of each")
    return ["".join(CELLS[cell] for cell in row) for row in cells]


def write(traces: Iterable[Trace], folder: str | Path, lossy: bool = False, report: Report | None = None) -> Path:
    """A new folder of ``train.jsonl`` and pictures, of which each trace keeps its last sketch.

    Errors: E10 a trace without a sketch, E19 with more than one question; and see ``writing.write``.
    """
    return writing.write(traces, folder, "train.jsonl", row, lossy, report)


def row(trace: Trace, target: Target) -> dict:
    turns = target.chat(trace, system=False)
    if len(turns) != 2:
        raise DataError("E19", "messages", "more than one question. Mirage holds one question and one answer.")
    asked, told = turns
    *more, sketch = [i for i, part in enumerate(told.content) if isinstance(part, Sketch)] or [None]
    if sketch is None:
        raise DataError("E10", "messages", "no sketch. Mirage holds one a row: convert to another format.")
    if more:
        target.lose("sketches besides the last", len(more))
    kept = Message("assistant", tuple(part for i, part in enumerate(told.content) if i not in more))
    return {
        "text_input": writing.spelled(asked),
        "image_input": [target.picture(part) for part in writing.pictures(asked)],
        "image_output": target.picture(told.content[sketch]),
        "text_output": writing.spelled(kept, SIGN),
        **writing.own(trace),
    }
