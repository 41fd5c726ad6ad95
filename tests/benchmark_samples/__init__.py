"""A made-up miniature of every benchmark in its published layouts, written by the test."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

from eval import selection
from eval.readers import open_source

from . import drawings, maths, mm_helix, perception, reasoning, vsp
from .writing import WRITERS, Sample, b64, image, png, stored

__all__ = [
    "SAMPLES",
    "WRITERS",
    "Sample",
    "b64",
    "changed",
    "grey",
    "image",
    "label",
    "png",
    "read",
    "sample",
    "stored",
]

SAMPLES = [*perception.SAMPLES, *maths.SAMPLES, *reasoning.SAMPLES, *mm_helix.SAMPLES, *vsp.SAMPLES, *drawings.SAMPLES]


def sample(name: str) -> Sample:
    """The first miniature of a benchmark."""
    return next(one for one in SAMPLES if one.name == name)


def written(name: str, folder: Path) -> Path:
    """The first miniature of a benchmark in ``folder``."""
    return sample(name).write(folder)


def changed(name, **fields):
    """The miniature with one row, the first one, with changed fields."""

    def write(folder):
        written(name, folder)
        file, rows = next(iter(sample(name).files.items()))
        WRITERS[Path(file).suffix](folder / file, [rows[0] | fields])

    return name, write


def label(one: Sample) -> str:
    """A miniature as the id of a test."""
    return f"{one.name} {one.layout}"


def grey(ref) -> int:
    """The number of the picture of an image."""
    return ref.load().getpixel((0, 0))[0]


@contextmanager
def read(name, folder, partial=True):
    """(items, what the protocol says of them)."""
    with open_source(folder) as source:
        yield selection.gradable_items(name, source, partial)
