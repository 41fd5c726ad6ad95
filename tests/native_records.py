"""Native records for tests: a good one, changes of it, and the only error of a file."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as PILImage

from latent_reason.data.native import DataError, check, read


def picture(seed=0, size=(6, 5), colours=3):
    generator = np.random.default_rng(seed)
    palette = generator.integers(0, 256, (colours, 3), dtype=np.uint8)
    return PILImage.fromarray(palette[generator.integers(0, colours, size[::-1])])


def record(**changes):
    return {
        "schema": "latent_reason/1",
        "id": "a-1",
        "task": "maze",
        "split": "train",
        "level": 3,
        "mode": "mixed",
        "messages": [
            {"role": "user", "content": [{"type": "image", "image": "img/p.png"}, {"type": "text", "text": "Where?"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Look."},
                    {"type": "sketch", "image": "img/s.png"},
                    {"type": "text", "text": "So \\boxed{D,R}"},
                ],
            },
        ],
        "answer": "D,R",
        "checker": "vsp",
        "meta": {"seed": 0},
    } | changes


def put(value, *keys, into=None):
    """The good record with ``value`` at ``keys``."""
    made = record() if into is None else into
    place = made
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return made


def error(path, **options):
    """What ``read`` raises, after making sure that ``check`` reports the same."""
    report = check(path, **options)
    with pytest.raises(DataError) as caught:
        list(read(path, **options))
    assert not report.ok and str(report.errors[0]) == str(caught.value)
    return caught.value
