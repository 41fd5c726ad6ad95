"""What the contract tests share: a very small backbone, and traces with words, pictures and sketches of many sizes.

Everything is made here from numpy noise, so no task, no download and no file is needed.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from latent_reason.backbones import load
from latent_reason.trace import Image, Message, Sketch, Text, Trace

CELL = 64  # pixels a token


def pytest_runtest_setup(item):
    torch.manual_seed(0)


def _picture(height: int, width: int, seed: int = 0) -> PILImage.Image:
    """A board of height x width cells, one colour a cell: one token a cell for the tiny backbone."""
    cells = np.random.default_rng([seed, height, width]).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return PILImage.fromarray(cells.repeat(CELL, 0).repeat(CELL, 1))


@pytest.fixture(scope="session")
def picture():
    return _picture


@pytest.fixture(scope="session")
def small_backbone():
    """The smallest stock model. Its weights are scaled up: at the usual 0.02 a random transformer hardly looks at its
    context, and a test that mixes up rows or positions would stay green."""
    backbone = load("tiny", width=32, layers=2, heads=2, eye_width=32)
    with torch.no_grad():
        for name, p in backbone.named_parameters():
            if p.ndim > 1:
                p.mul_(15 if "embed_tokens" in name else 8)
    return backbone


@pytest.fixture(scope="session")
def make_backbone(small_backbone):
    """``make_backbone(positions)``: a fresh copy of the small backbone, whose tokenizer may be grown."""

    def make(positions: str = "line"):
        backbone = copy.deepcopy(small_backbone)
        backbone.positions = positions
        return backbone

    return make


@pytest.fixture(scope="session")
def make_traces():
    """``make_traces(sketches, same_size)``: four traces of different lengths and picture sizes.

    With ``sketches`` three of them draw: one or two spans, of up to four latents or of two. ``same_size`` makes every
    sketch as large as the picture before it and lets it have all its latents, as decoding plans it.
    """

    def drawing(size, seed, k=None):
        return Sketch(_picture(*size, seed), k=k)

    def trace(name, size, question, said, drawn, pictures=1):
        seen = tuple(Image(_picture(*size, seed)) for seed in range(pictures))
        content = [part for pair in zip(said, [*drawn, None], strict=True) for part in pair if part is not None]
        return Trace(name, (Message("user", (*seen, Text(question))), Message("assistant", tuple(content))))

    def make(sketches: bool = True, same_size: bool = False):
        other, k = ((2, 2), 2) if not same_size else ((2, 3), None)
        drawn = [[drawing((2, 3), 1), drawing(other, 2, k)], [drawing((3, 3), 3)], [], [drawing((3, 2), 4, k)]]
        said = [["go", " left then ", "up."], ["now ", "the map is safe: down"], ["yes"], ["", "no, right."]]
        if not sketches:
            drawn, said = [[] for _ in drawn], [["".join(words)] for words in said]
        sizes, pictures = [(2, 3), (3, 3), (2, 2), (3, 2)], [1, 2, 1, 1]
        questions = ["where?", "which way is the goal from here?", "a hole?", "go on"]
        return [trace(str(i), *row) for i, row in enumerate(zip(sizes, questions, said, drawn, pictures, strict=True))]

    return make
