"""Mirage (arXiv 2506.17218): JSON lines with one question, one sketch at ``<output_image>`` and one answer.

Planning test rows have a map instead of an answer: 1 start, 2 goal, -1 hole, 0 ice. Image paths are relative to the
working directory of the source project, so set ``image_root``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...trace import Message, Sketch, Trace
from .. import chats, reading, writing
from ..errors import DataError, Report
from ..pictures import Limits
from ..places import ImageRoots
from ..reading import Fields
from ..record import boxed
from ..writing import Target

REQUIRED = {"text_input", "image_input"}
SIGN = "<output_image>"
CELLS = {1: "S", 2: "G", -1: "H", 0: "F"}


def read(
    source: str | Path, image_root: ImageRoots = None, report: Report | None = None, limits: Limits | None = None
) -> Iterator[Trace | DataError]:
    """Yield every row as a Trace. Rows with a map and without an answer become test items.

    Errors: E05 invalid map, E10 not exactly one ``<output_image>`` or wrong number of ``<image>``, E14 empty text.
    """
    return reading.read(source, trace, image_root, report, limits)


def trace(fields: Fields, source: str = "mirage") -> Trace:
    """Convert one row of Mirage, or an older row of ILVR, which uses the same format."""
    texts = chats.Texts(fields)
    asked = question(texts)
    if fields.has("map_desc") and not fields.has("text_output"):
        rows = board(fields)
        return reading.record(
            fields, source, [asked], id=fields.name("map_id"), split="test", checker="mirage", state={"map": rows}
        )
    text = texts.clean(fields.filled("text_output"), "text_output", "assistant")
    texts.boxes.check_used()
    if text.count(SIGN) != 1:
        raise DataError("E10", "text_output", f"{text.count(SIGN)} {SIGN}, expected 1. Mark the place of the sketch.")
    images = fields.pictures("image_output", Sketch)
    if len(images) != 1:
        raise DataError("E10", "image_output", f"{len(images)} images, expected 1: the sketch. Correct it.")
    response = Message("assistant", tuple(reading.insert_images(text, "text_output", SIGN, images)))
    return reading.record(fields, source, [asked, response], checker=checker(text))


def question(texts: chats.Texts) -> Message:
    """The question of a row, with its images."""
    text = texts.clean(texts.fields.filled("text_input"), "text_input", "user")
    return reading.question(texts.fields, text, "text_input", "image_input")


def checker(text: str) -> str:
    """The checker for an answer: a plan for moves, a choice for a letter A to C, else text equality."""
    answer = boxed(text) or ""
    if re.fullmatch(r"\W*[ABC]\W*", answer):
        return "mirage_check"
    return "mirage" if re.fullmatch(r"\W*([UDLR]\W*)+", answer) else "same_text"


def board(fields: Fields) -> list[str]:
    """Convert the map to rows of S, G, H and F. Raises DataError (E05) for an invalid map."""
    cells = fields.get("map_desc", list)

    def wrong(what: str) -> DataError:
        return DataError("E05", "map_desc", f"{what}. Use rows of equal length of 1 (start), 2 (goal), -1 (hole), 0.")

    if not cells or not all(isinstance(row, list) and len(row) == len(cells[0]) for row in cells):
        raise wrong("the rows are not lists of equal length")
    if unknown := [cell for row in cells for cell in row if type(cell) is not int or cell not in CELLS]:
        raise wrong(f"holds {str(unknown[0])[:20]!r}")
    counts = Counter(cell for row in cells for cell in row)
    if counts[1] != 1 or counts[2] != 1:
        raise wrong(f"has {counts[1]} x start and {counts[2]} x goal, expected one of each")
    return ["".join(CELLS[cell] for cell in row) for row in cells]


def write(traces: Iterable[Trace], folder: str | Path, lossy: bool = False, report: Report | None = None) -> Path:
    """Write ``train.jsonl`` and images to a new folder. Each trace keeps only its last sketch.

    Errors: E10 no sketch, E19 more than one question; see also ``writing.write``.
    """
    return writing.write(traces, folder, "train.jsonl", row, lossy, report)


def row(trace: Trace, target: Target) -> dict:
    """The row of a trace."""
    turns = target.chat(trace, system=False)
    if len(turns) != 2:
        raise DataError("E19", "messages", "more than one question. Mirage supports one question and one answer.")
    question, response = turns
    sketches = {i: part for i, part in enumerate(response.content) if isinstance(part, Sketch)}
    if not sketches:
        raise DataError("E10", "messages", "no sketch. Mirage requires one sketch per row. Convert to another format.")
    *more, last = sketches
    if more:
        target.count_loss("sketches besides the last", len(more))
    kept = Message("assistant", tuple(part for i, part in enumerate(response.content) if i not in more))
    return {
        "text_input": writing.join_parts(question),
        "image_input": [target.add_image(part) for part in writing.pictures(question)],
        "image_output": target.add_image(sketches[last]),
        "text_output": writing.join_parts(kept, SIGN),
        **writing.extra_column(trace),
    }
