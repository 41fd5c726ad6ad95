"""Latents in place of those that a model has drawn: hooks for :class:`~latent_reason.GenerationConfig`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from .sampling import noise_counters, normal, row_keys

MAX_LATENTS = 4096  # more than a span can have


class Zero:
    """Every latent is zero."""

    def __call__(self, rows, spans, slots, latents, written):
        return torch.zeros_like(latents)


class NoiseOfSameNorm:
    """Every latent has a random direction and the norm of the one that was drawn. The noise is keyed by row, span and
    slot, so that the order of decoding does not change it."""

    def __init__(self, seed: int = 0):
        self.seed = seed

    def __call__(self, rows, spans, slots, latents, written):
        place = (spans * MAX_LATENTS + slots).cpu()
        noise = normal(row_keys(self.seed, rows.tolist()), place, noise_counters(latents.shape[-1])).to(latents)
        return noise * latents.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True).clamp_min(1e-8)


class StoredLatents:
    """Latents from an earlier run: those of another item, or the item's own.

    Args:
        latents: per row, one (K, D) per span. If the model opens more spans, the last one repeats.
        only_stored: leaves latents of further spans as sampled instead.
    """

    def __init__(
        self,
        latents: Sequence[Sequence[torch.Tensor]] | Mapping[int, Sequence[torch.Tensor]],
        only_stored: bool = False,
    ):
        self.latents, self.only_stored = latents, only_stored

    def __call__(self, rows, spans, slots, vectors, written):
        out = vectors.clone()
        for i, (r, span, slot) in enumerate(zip(rows.tolist(), spans.tolist(), slots.tolist(), strict=True)):
            row_spans = self.latents[r]
            stored = row_spans[min(span, len(row_spans) - 1)] if row_spans else ()
            if len(stored) and not (self.only_stored and span >= len(row_spans)):
                out[i] = stored[min(slot, len(stored) - 1)]
        return out
