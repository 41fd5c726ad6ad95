"""easy-VQA (a package of the Python index, MIT): 5,000 pictures of one coloured shape with 48,248 questions.

Its 4,000 training pictures become conversations of a few questions (every 50th picture ``val``); its test questions
stand alone, as an answer before would tell of the next. Compare with a reader that does not look: the most frequent
training answer to a question's words is right for 0.670 of the test questions.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from PIL import Image as PILImage

from ..assets import Package, fetch, unpack
from ..trace import Image, Message, Text, Trace
from . import native

PACKAGE = Package(
    "easy-vqa==1.0", "easy_vqa-1.0-py3-none-any.whl", "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f"
)
INSIDE = "easy_vqa/data/"
TURNS = 4  # questions of a conversation: more would follow from the answers before


def write(folder: str | Path) -> Path:
    """A new folder of native records; returns the path of its JSONL.

    Raises:
        ValueError: the package cannot be had, or is not the one expected.
        FileExistsError: ``folder`` is not empty.
    """
    wheel = fetch(PACKAGE)
    with tempfile.TemporaryDirectory() as raw:
        return native.write(traces(unpack(wheel, INSIDE, raw)), folder)


def traces(source: Path) -> Iterator[Trace]:
    """The records of an unpacked ``easy_vqa/data`` folder: train and val, then test."""
    for image, asked in _pictures(source / "train"):
        split = "val" if image % 50 == 49 else "train"
        for i in range(0, len(asked), TURNS):
            yield trace(
                f"easy_vqa-train-{image}-{i}", split, source / "train" / "images" / f"{image}.png", asked[i : i + TURNS]
            )
    for image, asked in _pictures(source / "test"):
        for i, pair in enumerate(asked):
            yield trace(f"easy_vqa-test-{image}-{i}", "test", source / "test" / "images" / f"{image}.png", [pair])


def _pictures(part: Path) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """(picture, its questions with their answers)."""
    told = sorted(json.loads((part / "questions.json").read_text(encoding="utf-8")), key=lambda row: row[2])
    for image, rows in groupby(told, key=lambda row: row[2]):
        yield image, [(question, answer) for question, answer, _ in rows]


def trace(id: str, split: str, picture: Path, asked: list[tuple[str, str]]) -> Trace:
    """One picture and what is asked about it, turn by turn."""
    with PILImage.open(picture) as opened:
        shown = (Image(opened.convert("RGB")),)
    messages = []
    for question, answer in asked:
        messages += [Message("user", (*shown, Text(question))), Message("assistant", (Text(answer),))]
        shown = ()
    return Trace(id, tuple(messages), task="easy_vqa", split=split, mode="direct")
