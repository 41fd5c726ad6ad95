"""One answer as a person looks at it: the question, then texts and sketches in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image as PILImage

from ..decoding.rollout import Span
from .storyboard import DecodedTrace, decode_sketches

STRIP_SIDE = 96  # pixels of a picture of latents that nothing renders


@dataclass(frozen=True)
class SketchView:
    """A sketch of an answer.

    Attributes:
        number: which of the answer's sketches it is, from 1.
        num_latents: its latents.
        picture: rendered by the sketch decoder; else its latents as colors (``is_rendered`` is False).
        gold: the true sketch of the same number, where there is one.
        is_right: whether it shows what it should; None where nothing can tell.
        tokens: of each latent, the text tokens that the model would most likely write after it.
        similar: the most similar known sketches, each with its cosine.
    """

    number: int
    num_latents: int
    picture: PILImage.Image
    is_rendered: bool
    gold: PILImage.Image | None = None
    is_right: bool | None = None
    tokens: tuple[tuple[str, ...], ...] = ()
    similar: tuple[tuple[PILImage.Image, float], ...] = ()


@dataclass(frozen=True)
class AnswerView:
    """A question with its pictures, the steps of the answer, and what is known to be right."""

    question: str
    images: Sequence[PILImage.Image]
    steps: Sequence[str | SketchView]
    gold_answer: str | None = None
    is_right: bool | None = None
    about: dict[str, str] = field(default_factory=dict)  # further lines: checkpoint, seed, ...


def view_answer(
    reasoner,
    decoder,
    decoded: DecodedTrace,
    *,
    gold: Sequence[PILImage.Image | None] | None = None,
    is_right: bool | None = None,
    sketches_right: Sequence[bool | None] = (),
    tokens: Sequence[Sequence[Sequence[str]]] = (),
    similar: Sequence[Sequence[tuple[PILImage.Image, float]]] = (),
    about: dict[str, str] | None = None,
) -> AnswerView:
    """The answer of a model as a view. ``decoder`` may be None: sketches are then shown by the colors of their latents.

    Args:
        gold: the true picture of each sketch; None: the sketches of the trace, by their number.
        is_right: whether the answer is right.
        sketches_right, tokens, similar: of each sketch, what :class:`SketchView` says; shorter ones leave the rest out.
    """
    trace, rollout, row = decoded
    images = trace.images()
    gold = [sketch.image for sketch in trace.sketches()] if gold is None else gold
    spans = rollout.spans_of(row)
    if decoder is not None and reasoner.is_renderable and images:
        pictures, is_rendered = decode_sketches(reasoner, decoder, rollout, row, images[-1]), True
    else:
        pictures, is_rendered = draw_latents([rollout.latents(s) for s in spans], [s.grid for s in spans]), False
    steps: list[str | SketchView] = []
    n = 0
    for piece in rollout.segments(row, reasoner.vocabulary):
        if not isinstance(piece, Span):
            steps.append(piece)
            continue
        steps.append(
            SketchView(
                n + 1,
                piece.length,
                pictures[n],
                is_rendered,
                gold[n] if n < len(gold) else None,
                sketches_right[n] if n < len(sketches_right) else None,
                tuple(map(tuple, tokens[n])) if n < len(tokens) else (),
                tuple(similar[n]) if n < len(similar) else (),
            )
        )
        n += 1
    asked = [part.text for part in trace.prompt().messages[-1].content if hasattr(part, "text")]
    return AnswerView("".join(asked), images, steps, trace.answer, is_right, about or {})


def draw_latents(spans: Sequence[torch.Tensor], grids: Sequence[tuple[int, int]]) -> list[PILImage.Image]:
    """Spans of latents (K, D) on their grids as pictures, one cell a latent.

    The three principal components of all latents together are red, green and blue, so that equal colors are equal
    directions. Fewer than four latents are shown by their norms, in gray.
    """
    if not spans:
        return []
    every = torch.cat([z.float().cpu() for z in spans])
    if len(every) < 4:
        norms = every.norm(dim=-1)
        colors = (norms / norms.max().clamp_min(1e-8))[:, None].expand(-1, 3)
    else:
        centered = every - every.mean(0)
        _, _, directions = torch.linalg.svd(centered, full_matrices=False)
        directions = directions[:3] * directions[:3].sum(1, keepdim=True).sign()  # else the sign differs by machine
        scores = centered @ directions.T
        low, high = scores.amin(0), scores.amax(0)
        colors = (scores - low) / (high - low).clamp_min(1e-8)
        colors = torch.nn.functional.pad(colors, (0, 3 - colors.shape[1]))
    pictures, at = [], 0
    for z, grid in zip(spans, grids, strict=True):
        cells = colors[at : at + len(z)]
        at += len(z)
        pictures.append(_draw_cells(cells, grid))
    return pictures


def _draw_cells(colors: torch.Tensor, grid: tuple[int, int]) -> PILImage.Image:
    """Colors (K, 3) of 0 to 1 on a grid, white where it has more cells; one line where the grid is not theirs."""
    height, width = grid if grid[0] * grid[1] >= len(colors) and 0 not in grid else (1, max(len(colors), 1))
    cells = torch.ones(height * width, 3)
    cells[: len(colors)] = colors
    pixels = (cells.view(height, width, 3) * 255).round().byte().numpy()
    side = max(1, STRIP_SIDE // max(height, width))
    return PILImage.fromarray(pixels).resize((width * side, height * side), PILImage.Resampling.NEAREST)
