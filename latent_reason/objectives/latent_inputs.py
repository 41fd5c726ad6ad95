"""Which latents stand in the context in training: the target's, the model's own, or some of both.

Target latents (teacher forcing) need one parallel pass, but then the model never meets what it will draw itself
(exposure bias). Own latents are drawn one after the other through the cache, or by parallel sweeps over all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from ..errors import did_you_mean
from ..model.batch import TEXT, MixedBatch, shift_right, to_device
from ..model.reasoner import LatentReasoner
from ..values import Share, Weight, check_fields
from .forward import forward_batch


@dataclass(frozen=True)
class ScheduledSampling:
    """How much a model trained on target latents meets of its own (after ILVR 2512.05665, Latent Sketchpad
    2510.24514).

    Args:
        noise_std: std of noise on target latents, in stds of their channels.
        prob: share of target latents replaced by the model's own at the end of training. It rises linearly from 0.
            All are drawn from one pass over the targets.
        sequential: draw them one after the other instead, each after the model's own latents.
        reencode_prob: share of sketches replaced by their rendering, encoded again. It needs a sketch decoder.
    """

    noise_std: Weight = 0.0
    prob: Share = 0.0
    sequential: bool = False
    reencode_prob: Share = 0.0

    def __post_init__(self):
        check_fields(self, "scheduled_sampling.")

    @classmethod
    def from_options(cls, options: dict[str, Any] | None) -> ScheduledSampling:
        """The fields of a recipe. Raises ValueError for a field that does not exist."""
        known = [f.name for f in fields(cls)]
        for name in options or {}:
            if name not in known:
                raise ValueError(f"scheduled_sampling has no field {name!r}. {did_you_mean(name, known)}")
        return cls(**(options or {}))


def text_since_span(batch: MixedBatch) -> torch.Tensor:
    """(S, N) positions of the model's own text between a span and the one before it in its row, and of the span's
    first latent. The states before these positions are what an editor head reads."""
    layout, at = batch.layout, np.arange(batch.ids.shape[1])
    since: list[int] = []
    ends: dict[int, int] = {}
    for row, start, h, w in layout.spans.tolist():
        since.append(ends.get(row, 0))
        ends[row] = start + h * w + 1  # after the close token
    row, start = layout.spans[:, 0], layout.spans[:, 1:2]
    own = ((layout.token_type == TEXT) & layout.has_loss)[row] | (at == start)
    own = own & (at >= np.array(since)[:, None]) & (at <= start)
    return to_device(torch.tensor(own), batch.ids.device)


def in_groups(batch: MixedBatch, keys: list[int]) -> tuple[list[int], torch.Tensor, dict[int, slice]]:
    """The order of n latents that sorts them by ``keys`` of theirs, the same (n,) on the device, and for each key the
    part of that order."""
    order = sorted(range(len(keys)), key=keys.__getitem__)
    parts: dict[int, slice] = {}
    for at, i in enumerate(order):
        start = parts[keys[i]].start if keys[i] in parts else at
        parts[keys[i]] = slice(start, at + 1)
    return order, to_device(torch.tensor(order, dtype=torch.long), batch.ids.device), parts


@torch.no_grad()
def norm_and_cosine(latents: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean norm of latents (n, D) as the model reads them, and mean cosine of two of them, which is near 1 where they
    have collapsed; nothing of no latents. Nothing is read from the device."""
    n = len(latents)
    if not n:
        return {}
    z = latents.float()
    norms = z.norm(dim=-1, keepdim=True)
    unit = z / norms.clamp_min(1e-8)
    pairs = max(n * (n - 1), 1)
    return {"latents/norm": norms.mean(), "latents/pairwise_cos": (unit.sum(0).square().sum() - n) / pairs}


def mean_latents(model: LatentReasoner, batch: MixedBatch) -> torch.Tensor:
    """(S, K, D) latents without information: the mean of each slot, or zeros for a model without a target."""
    span, _, _, slot, grids = batch.latent_places()
    shape = len(batch.spans), batch.layout.longest, model.backbone.width
    empty = torch.zeros(shape, device=batch.ids.device)
    if model.target is None:
        return empty
    embeds = model.latents_to_embeddings(model.target.slot_mean(grids, slot))
    return empty.index_put((span, slot), embeds.float())


def head_noise(model: LatentReasoner, n: int) -> torch.Tensor | None:
    """(n, Z) noise for a stochastic head, None for others."""
    return torch.randn(n, model.head.latent_width, device=model.device) if model.head.is_stochastic else None


def unroll_latents(
    model: LatentReasoner,
    batch: MixedBatch,
    positions: torch.Tensor,
    *,
    keep: torch.Tensor | None = None,
    is_own: torch.Tensor | None = None,
    dropped: torch.Tensor | None = None,
    empty: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """States (B, N, D) with the model's own latents in the context, and these latents (S, K, D): one cached pass for
    each column that holds a latent, with gradients (equal to recomputing the whole prefix; Coconut 2412.06769).

    With ``keep`` (S, K, D), only the latents of ``is_own`` (S, K) are the model's. Latents of ``dropped`` (S, K) are
    replaced by ``empty`` (S, K, D).

    Raises:
        ValueError: activation checkpointing is on.
    """
    if model.backbone.is_gradient_checkpointing:
        raise ValueError(
            "latent_input='self' cannot run with activation checkpointing: transformers drops the cache there, and "
            "every latent would be drawn without its context. Turn one of them off."
        )
    embeds, cache = model.embed_batch(batch), model.backbone.new_cache()
    states: list[torch.Tensor] = []
    context = model.head_context(batch)
    text_mask = None if context is None else text_since_span(batch)
    host_order, order, columns = in_groups(batch, batch.layout.latents[2])
    span, row, _, slot, grids = (x[order] for x in batch.latent_places())
    latents = embeds.new_zeros(len(batch.spans), batch.layout.longest, model.backbone.width)
    for start, stop in pairwise([0, *columns, batch.ids.shape[1]]):
        chunk = embeds[:, start:stop]
        if now := columns.get(start):
            r, s, j = row[now], span[now], slot[now]
            step_context = None
            if context is not None:
                places = [(batch.layout.latents[1][i], batch.layout.latents[3][i]) for i in host_order[now]]
                so_far = shift_right(torch.cat([*states, states[-1][:, :1]], 1))  # of positions up to this one
                mask = torch.zeros_like(batch.mask)[:, : start + 1].index_put((r,), text_mask[s, : start + 1])
                step_context = context.for_rows(r, j, so_far, mask, places)
            h, noise = states[-1][r, -1], head_noise(model, len(r))
            own = model.sample_latents(h, grids[now], j, noise, step_context).to(chunk.dtype)
            if keep is not None:
                own = torch.where(is_own[s, j][:, None], own, keep[s, j].to(chunk.dtype))
            if dropped is not None:
                own = torch.where(dropped[s, j][:, None], empty[s, j].to(chunk.dtype), own)
            latents = latents.index_put((s, j), own)
            first = chunk[:, 0].index_put((r,), model.backbone.pad_extra(own))
            chunk = torch.cat([first[:, None], chunk[:, 1:]], 1)
        here = positions[:, :, start:stop]
        states.append(forward_batch(model.backbone, batch, chunk, here, start=start, stop=stop, cache=cache))
        assert cache.get_seq_length() == stop, "the cache was dropped"
    return torch.cat(states, 1), latents


def latents_from_states(model: LatentReasoner, batch: MixedBatch, states: torch.Tensor) -> torch.Tensor:
    """Latents (S, K, D) drawn from the states (B, N, D) of one pass, whatever stood in its context."""
    span, row, position, slot, grids = batch.latent_places()
    h, noise, context = shift_right(states)[row, position], head_noise(model, len(row)), model.head_context(batch)
    latents = states.new_zeros(len(batch.spans), batch.layout.longest, states.shape[-1])
    steps = [slice(None)]
    if context is not None:  # the head reads earlier latents of a span: one slot of every span after the other
        rows = batch.spans[:, 0]
        context = context.for_spans(rows, shift_right(states)[rows], text_since_span(batch))
        _, order, slots = in_groups(batch, batch.layout.latents[3])
        steps = [order[part] for part in slots.values()]
    for now in steps:
        own = model.sample_latents(
            h[now],
            grids[now],
            slot[now],
            None if noise is None else noise[now],
            context and context.for_rows(span[now], slot[now]),
        )
        latents = latents.index_put((span[now], slot[now]), own.to(latents.dtype))
    return latents


def sweep_latents(
    model: LatentReasoner, batch: MixedBatch, positions: torch.Tensor, sweeps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """As :func:`unroll_latents`, by parallel (Jacobi) sweeps. Each sweep draws all latents again from a full pass over
    those of the sweep before. A latent is exact once all before it in its row are; so as many sweeps as a row has
    latents give exactly the sequential result, and fewer approximate it. The head must not be stochastic."""
    latents = model.embed_batch(batch).new_zeros(len(batch.spans), batch.layout.longest, model.backbone.width)
    for _ in range(sweeps):
        states = forward_batch(model.backbone, batch, model.embed_batch(batch, latents), positions)
        latents = latents_from_states(model, batch, states)
    return forward_batch(model.backbone, batch, model.embed_batch(batch, latents), positions), latents


#: re-encodes the rendering of chosen spans: (model, batch, latents (S, K, D), chosen (S,)) -> latents (S, K, D)
Reencode = Callable[[LatentReasoner, MixedBatch, torch.Tensor, torch.Tensor], torch.Tensor]
