"""Whose latents stand in the context while a model trains: given ones, its own, or some of both.

Given latents are quick (one parallel pass) but a model fed nothing else never meets what it will draw itself
(exposure bias); own latents are drawn one after the other through the cache, or by sweeps over all of them at once.
The functions take a reasoner and know no method.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

import torch

from ..errors import did_you_mean
from ..model.batch import TEXT, MixedBatch, before


@dataclass(frozen=True)
class Exposure:
    """What a model trained on given latents meets of its own (after ILVR 2512.05665 and Latent Sketchpad 2510.24514).

    ``noise``: std of noise on given latents, in channel stds. ``own``: share of given latents replaced by drawn ones at
    the end of training, rising from none in proportion to the steps done; all drawn from one pass over the given ones,
    or with ``serial`` one after the other, each after its own ones. ``redraw``: share of sketches replaced by what the
    eye sees of their rendering, which needs a decoder.
    """

    noise: float = 0.0
    own: float = 0.0
    serial: bool = False
    redraw: float = 0.0

    def __post_init__(self):
        for name in ("own", "redraw"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"exposure.{name}={getattr(self, name)}: a share from 0 to 1.")
        if self.noise < 0:
            raise ValueError(f"exposure.noise={self.noise}: a number of channel stds, 0 or more.")


def exposure_of(options: dict | None) -> Exposure:
    """The fields of a recipe as an :class:`Exposure`. Raises ValueError for a field it does not have."""
    known = [f.name for f in fields(Exposure)]
    for name in options or {}:
        if name not in known:
            raise ValueError(f"exposure has no field {name!r}. {did_you_mean(name, known)}")
    return Exposure(**(options or {}))


def places(batch: MixedBatch) -> tuple[torch.Tensor, ...]:
    """Of the n latents of a batch: span, row, position, slot (n,) and grid (n, 2)."""
    rows, position, mask = batch.slots()
    span, slot = mask.nonzero(as_tuple=True)
    return span, rows[mask], position[mask], slot, batch.spans[span, 2:]


def said_before(batch: MixedBatch) -> torch.Tensor:
    """(S, N) the positions of the model's own words between a span and the one before it in its row, and of the span's
    first latent: the states before these are what an edit is told."""
    at, since = torch.arange(batch.ids.shape[1], device=batch.ids.device), []
    ends: dict[int, int] = {}
    for row, start, h, w in batch.spans.tolist():
        since.append(ends.get(row, 0))
        ends[row] = start + h * w + 1  # after the close token
    row, start = batch.spans[:, 0], batch.spans[:, 1:2]
    own = ((batch.kind == TEXT) & (batch.weight > 0))[row] | (at == start)
    return own & (at >= torch.tensor(since, device=at.device)[:, None]) & (at <= start)


def left_out(reasoner, batch: MixedBatch) -> torch.Tensor | None:
    """(S, K) the latents to leave out of this training step, a share ``dropped`` of them; None: none."""
    if not (reasoner.training and reasoner.dropped):
        return None
    return torch.rand(batch.slots()[2].shape, device=batch.ids.device) < reasoner.dropped


def nothing(reasoner, batch: MixedBatch) -> torch.Tensor:
    """(S, K, D) what a latent is where it says nothing: the mean of its slot; zeros where no picture teaches it."""
    span, _, _, slot, grids = places(batch)
    empty = torch.zeros(*batch.slots()[2].shape, reasoner.backbone.width, device=batch.ids.device)
    if not reasoner.taught or reasoner.target is None:
        return empty
    z = torch.zeros(len(slot), reasoner.head.latent, device=batch.ids.device)
    return empty.index_put((span, slot), reasoner.feedback(reasoner.target.unstandard(z, grids, slot)).float())


def noise_for(reasoner, n: int) -> torch.Tensor | None:
    return torch.randn(n, reasoner.head.latent, device=reasoner.device) if reasoner.head.noise else None


def unroll(
    reasoner,
    batch: MixedBatch,
    positions: torch.Tensor,
    given: torch.Tensor | None = None,
    own: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """States (B, N, D) with the model's own latents in the context, and these latents (S, K, D): one cached pass a
    column that holds a latent, gradients kept (equal to recomputing the whole prefix each time; Coconut 2412.06769).
    With ``given`` (S, K, D) only those of ``own`` (S, K) are the model's.

    Raises:
        ValueError: activation checkpointing is on.
    """
    if reasoner.backbone.checkpointing:
        raise ValueError(
            "latent_input='self' cannot run with activation checkpointing: transformers drops the "
            "cache there and every latent would be drawn without its context. Turn one of them off."
        )
    embeds, cache, states = reasoner.embed(batch), reasoner.backbone.new_cache(), []
    scene = reasoner.scene(batch)
    span, row, position, slot, grids = places(batch)
    latents = embeds.new_zeros(*batch.slots()[2].shape, reasoner.backbone.width)
    said, out = said_before(batch), left_out(reasoner, batch)
    empty = None if out is None else nothing(reasoner, batch)
    edges = [0, *position.unique().tolist(), batch.ids.shape[1]]
    for start, stop in pairwise(edges):
        if start == stop:
            continue
        chunk, here = embeds[:, start:stop], position == start
        if here.any():
            r, s, j = row[here], span[here], slot[here]
            if scene is not None:
                scene.states = before(torch.cat([*states, states[-1][:, :1]], 1))  # of positions up to this
                scene.said = torch.zeros_like(batch.mask)[:, : start + 1].index_put((r,), said[s, : start + 1])
            drawn = reasoner.draw(
                states[-1][r, -1], noise_for(reasoner, len(r)), grids[here], j, scene and scene.at(r, j)
            ).to(chunk.dtype)
            if given is not None:
                drawn = torch.where(own[s, j][:, None], drawn, given[s, j].to(chunk.dtype))
            if out is not None:
                drawn = torch.where(out[s, j][:, None], empty[s, j].to(chunk.dtype), drawn)
            latents = latents.index_put((s, j), drawn)
            first = chunk[:, 0].index_put((r,), reasoner.backbone.widen(drawn))
            chunk = torch.cat([first[:, None], chunk[:, 1:]], 1)
        states.append(reasoner.backbone.trunk(chunk, batch.attention(start, stop), positions[:, :, start:stop], cache))
        assert cache.get_seq_length() == stop, "the cache was dropped"
    return torch.cat(states, 1), latents


def drawn_from(reasoner, batch: MixedBatch, states: torch.Tensor) -> torch.Tensor:
    """Latents (S, K, D) drawn from the states (B, N, D) of one pass, whatever stood in its context."""
    span, row, position, slot, grids = places(batch)
    h, noise, scene = before(states)[row, position], noise_for(reasoner, len(row)), reasoner.scene(batch)
    latents = states.new_zeros(*batch.slots()[2].shape, states.shape[-1])
    steps = [torch.ones_like(slot, dtype=torch.bool)]
    if scene is not None:  # it reads the latents before: one slot of every span after the other
        rows = batch.spans[:, 0]
        scene = scene.spread(rows, before(states)[rows], said_before(batch))
        steps = [slot == j for j in range(int(slot.max()) + 1)]
    for here in steps:
        drawn = reasoner.draw(
            h[here],
            None if noise is None else noise[here],
            grids[here],
            slot[here],
            scene and scene.at(span[here], slot[here]),
        )
        latents = latents.index_put((span[here], slot[here]), drawn.to(latents.dtype))
    return latents


def sweep(reasoner, batch: MixedBatch, positions: torch.Tensor, sweeps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As :func:`unroll`, by parallel (Jacobi) sweeps: each draws all latents anew from a full pass over those of the
    sweep before. A latent is right once all before it in its row are, so as many sweeps as a row has latents give
    exactly the sequential result; fewer are an approximation. Needs a head without noise."""
    latents = reasoner.embed(batch).new_zeros(*batch.slots()[2].shape, reasoner.backbone.width)
    for _ in range(sweeps):
        states = reasoner.backbone.trunk(reasoner.embed(batch, latents), batch.attention(), positions)
        latents = drawn_from(reasoner, batch, states)
    return reasoner.backbone.trunk(reasoner.embed(batch, latents), batch.attention(), positions), latents
