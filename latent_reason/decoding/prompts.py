"""Prompts of rows that begin: what they are forced to write, the grids of their sketches, and their cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..model.batch import IMAGE, PAD, Grid, MixedBatch, to_device
from ..model.reasoner import LatentReasoner
from .config import GenerationConfig


def planned_grids(model: LatentReasoner, prompt: MixedBatch) -> list[Grid]:
    """The latent grid of each row's sketches: the switch's count, or the grid for the row's last image."""
    grids = [model.latent_grid_for(None)] * len(prompt.ids)
    if prompt.images is not None:
        for row, size in zip(prompt.image_rows, model.backbone.token_grids(prompt.images), strict=True):
            grids[row] = model.latent_grid_for(size)
    return grids


def forced_queues(
    model: LatentReasoner, config: GenerationConfig, given: Sequence[Sequence[int]] | None, n: int
) -> list[list[int]]:
    """The ids that each of n rows is forced to write first, an opening token included where spans open at once.

    Raises:
        ValueError: a span is forced open that cannot be drawn, or the ids hold the placeholder of a latent.
    """
    v, queue = model.vocabulary, [[] for _ in range(n)] if given is None else [list(ids) for ids in given]
    if any(v.latent in forced for forced in queue):
        raise ValueError("forced_tokens hold the placeholder of a latent. Leave it out: an open token draws a span.")
    at_once = config.latent_mode == "learned" and model.switch.start == "first" and model.can_sketch
    if at_once or config.latent_mode == "first":
        queue = [forced if forced[:1] == [v.open] else [v.open, *forced] for forced in queue]
    can_sketch = config.latent_mode != "off" and model.can_sketch
    if not can_sketch and any(v.open in forced for forced in queue):
        raise ValueError(
            "a span is forced open, but the model has no latent head or latent_mode is 'off'. Remove the open "
            "token, or use latent_mode='learned' with a method that sketches."
        )
    return queue


@dataclass
class ComputedPrompts:
    """Prompts of n rows, computed but for their last position, which is the input of the first step.

    Attributes:
        cache: keys and values of the distinct prompts, a stock cache; ``rows`` (n,) says which is whose.
        pads: (n,) padding positions before each prompt; ``length`` (n,) is without them.
        embeds: (n, D) inputs of the last position; ``positions`` (axes, n) where it stands.
        next: (n,) the position of the first token.
        images: (n, N) columns of images.
    """

    cache: Any
    rows: torch.Tensor
    pads: torch.Tensor
    length: torch.Tensor
    embeds: torch.Tensor
    positions: torch.Tensor
    next: torch.Tensor
    images: torch.Tensor


def compute_prompts(
    model: LatentReasoner, prompt: MixedBatch, embeds: torch.Tensor | None, same_prompt: Sequence[int]
) -> ComputedPrompts:
    """Compute prompts, each of ``same_prompt`` once: for each row the first row with the same prompt. ``embeds``
    (B, N, D + extra_width) take the place of the model's own inputs."""
    backbone, device, length = model.backbone, prompt.ids.device, prompt.ids.shape[1]
    positions = backbone.position_ids(prompt) if prompt.positions is None else prompt.positions
    embeds, mask = model.prompt_embeddings(prompt) if embeds is None else embeds, prompt.mask
    distinct = sorted(set(same_prompt))
    first, rows = (to_device(torch.tensor(x), device) for x in (distinct, [distinct.index(row) for row in same_prompt]))
    cache, end = backbone.new_cache(), max(length - 1, 1)
    backbone.forward_text(embeds[first, :end], mask[first, :end], positions[:, first, :end], cache)
    pads = to_device(torch.tensor((prompt.layout.token_type == PAD).sum(1)), device)
    columns = (pads[:, None] + torch.arange(length, device=device)).clamp_max(length - 1)
    return ComputedPrompts(
        cache,
        rows,
        pads,
        length - pads,
        embeds[:, -1, : backbone.width],  # text, which has no features besides its embedding
        positions[:, :, -1],
        positions.masked_fill(~mask, -1).amax((0, 2)) + 1,
        (prompt.token_type == IMAGE).gather(1, columns) & (columns < length - 1),
    )


def within_limit(model: LatentReasoner, prompt: MixedBatch, budgets: list[int]) -> list[int]:
    """New positions of each row, within what ``max_length`` of the model leaves after its prompt.

    Raises:
        ValueError: a prompt leaves none.
    """
    limit = model.backbone.length_limit
    if limit is None:
        return budgets
    lengths = (prompt.layout.token_type != PAD).sum(1).tolist()
    if max(lengths) >= limit:
        raise ValueError(
            f"max_length={limit}: a prompt has {max(lengths)} positions, images included, which leaves none for the answer. "
            "Set a larger max_length, or a smaller image.max_pixels."
        )
    return [min(budget, limit - length) for budget, length in zip(budgets, lengths, strict=True)]
