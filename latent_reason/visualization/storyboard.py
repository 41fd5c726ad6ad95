"""Storyboards: the sketches and the text of a model beside the input and the gold sketches, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

from PIL import Image as PILImage

from ..decoding.rollout import Rollout, Span
from ..trace import Trace
from .contact_sheet import Cell, draw_sheet


class DecodedTrace(NamedTuple):
    """A trace and its answer: row ``row`` of ``rollout`` was generated from the prompt of ``trace``.

    The three travel together because the rows of a rollout need not be in the order of the items: decoding sorts items
    by level, and divides them into several rollouts.
    """

    trace: Trace
    rollout: Rollout
    row: int


def decode_sketches(reasoner, decoder, rollout: Rollout, row: int, picture: PILImage.Image) -> list[PILImage.Image]:
    """Decode the spans of one row to pictures, one for each span. ``picture`` is the input; the sketches have its token
    grid."""
    size = reasoner.backbone.token_grid(picture)
    spans = rollout.spans_of(row)
    return [decoder.draw(reasoner.unscale_latents(rollout.latents(s)), s.grid, size) for s in spans]


def split_text(rollout: Rollout, row: int, vocabulary) -> list[str]:
    """Split the text of a row at its spans: for S spans S + 1 texts, one before each span and one after the last."""
    texts = [""]
    for piece in rollout.segments(row, vocabulary):
        if isinstance(piece, Span):
            texts.append("")
        else:
            texts[-1] += piece
    return texts


def reconstruct_picture(reasoner, decoder, picture: PILImage.Image) -> PILImage.Image:
    """Encode a picture to target latents and decode them. No sketch of the model can be decoded more faithfully."""
    images = reasoner.processor.preprocess_sketches([picture]).to(reasoner.device)
    size = reasoner.backbone.token_grid(picture)
    grid = reasoner.target.latent_grid(*size)
    return decoder.draw(reasoner.target.encode_embeddings(images, [grid])[0], grid, size)


def arrange_steps(reasoner, decoder, decoded: DecodedTrace) -> list[list[Cell]]:
    """Arrange one decoded trace as rows of a sheet, one row for each step.

    Columns: input, gold sketch, gold sketch after encoding and decoding, the model's sketch, the model's text up to
    that sketch. The row after the last sketch holds the rest of the text. The gold columns end with the gold trace, the
    model's with its answer. Captions stand in the first row. A last row names the gold answer.
    """
    trace, rollout, row = decoded
    picture = trace.images()[-1]
    gold = [sketch.image for sketch in trace.sketches()]
    columns = {
        "input": [picture],
        "gold sketch": gold,
        "gold sketch, decoded": [image and reconstruct_picture(reasoner, decoder, image) for image in gold],
        "model's sketch": decode_sketches(reasoner, decoder, rollout, row, picture),
        "answer": split_text(rollout, row, reasoner.vocabulary),
    }
    captions = [caption if any(column) else "" for caption, column in columns.items()]
    steps = list(zip_longest(*columns.values()))
    rows = [list(zip(captions if number == 0 else [""] * 5, step, strict=True)) for number, step in enumerate(steps)]
    return [*rows, [*[("", None)] * 4, (f"gold answer: {trace.answer}", None)]] if trace.answer else rows


def draw_storyboard(reasoner, decoder, decoded: Sequence[DecodedTrace], tile: int = 144) -> PILImage.Image:
    """Draw decoded traces under each other, as :func:`arrange_steps` arranges them, with a rule between two.

    Example::

        results = decode(reasoner, decoder, task, items, mode)
        draw_storyboard(reasoner, decoder, [result.decoded for result in results]).save("sketches.png")
    """
    rows: list[list[Cell]] = []
    for one in decoded:
        rows += [*([[]] if rows else []), *arrange_steps(reasoner, decoder, one)]
    return draw_sheet(rows, tile=tile)
