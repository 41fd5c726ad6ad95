"""easy-VQA (a PyPI package, MIT): 5,000 images of one colored shape with 48,248 questions.

The 4,000 training images become conversations of a few questions (every 50th image is ``val``). Test questions are
separate items, because an earlier answer would give information about the next. Baseline without images: the most
frequent training answer to the question text is correct for 0.670 of the test questions.
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
TURNS = 4  # questions per conversation; more could be inferred from earlier answers


def write(folder: str | Path) -> Path:
    """Write native records to a new folder; returns the path of the JSONL file.

    Raises:
        ValueError: the package cannot be downloaded or its hash differs.
        FileExistsError: ``folder`` is not empty.
    """
    wheel = fetch(PACKAGE)
    with tempfile.TemporaryDirectory() as raw:
        return native.write(traces(unpack(wheel, INSIDE, raw)), folder)


def traces(source: Path) -> Iterator[Trace]:
    """Yield the records of an unpacked ``easy_vqa/data`` folder: train and val, then test."""
    for image, pairs in _pictures(source / "train"):
        split = "val" if image % 50 == 49 else "train"
        for i in range(0, len(pairs), TURNS):
            yield trace(
                f"easy_vqa-train-{image}-{i}", split, source / "train" / "images" / f"{image}.png", pairs[i : i + TURNS]
            )
    for image, pairs in _pictures(source / "test"):
        for i, pair in enumerate(pairs):
            yield trace(f"easy_vqa-test-{image}-{i}", "test", source / "test" / "images" / f"{image}.png", [pair])


def _pictures(part: Path) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Yield (image number, its questions and answers)."""
    questions = sorted(json.loads((part / "questions.json").read_text(encoding="utf-8")), key=lambda row: row[2])
    for image, rows in groupby(questions, key=lambda row: row[2]):
        yield image, [(question, answer) for question, answer, _ in rows]


def trace(id: str, split: str, picture: Path, pairs: list[tuple[str, str]]) -> Trace:
    """A conversation of questions about one image."""
    with PILImage.open(picture) as opened:
        images: tuple[Image, ...] = (Image(opened),)
    messages = []
    for question, answer in pairs:
        messages += [Message("user", (*images, Text(question))), Message("assistant", (Text(answer),))]
        images = ()
    return Trace(id, tuple(messages), task="easy_vqa", split=split, mode="direct")
