"""Who may look at what: masks for training that make latents carry what words could otherwise look up.

A mask says for each position what it may attend to (``MixedBatch.sees``); without one it is all that is before it.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ..model.batch import IMAGE, TEXT, MixedBatch, within


def causal(batch: MixedBatch) -> torch.Tensor:
    """(B, N, N) all of its trace that is before a position; padding looks at itself."""
    return within(batch.mask if batch.number is None else batch.number)


def bottlenecked(batch: MixedBatch, rows: torch.Tensor) -> MixedBatch:
    """The batch where, in the chosen ``rows`` (B,), words after a sketch look neither at the input's pictures nor at
    the words of the steps before that sketch: what they need of both has to stand in the latents, which may look at
    all. (The question stays in sight, and it has seen the picture.)"""
    sees = causal(batch) if batch.sees is None else batch.sees.clone()
    places = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    own = (batch.kind == TEXT) & (batch.weight > 0)
    for row, start, h, w in batch.spans[rows[batch.spans[:, 0]]].tolist():
        told = (batch.kind[row] == TEXT) & (places >= start + h * w) & sees[row, :, start]  # of the same trace
        hidden = (batch.kind[row] == IMAGE) | own[row] & (places < start)
        sees[row] &= ~(told[:, None] & hidden)
    return replace(batch, sees=sees)


def veiled(batch: MixedBatch, backbone) -> MixedBatch:
    """The batch where a picture that stands just before a span is seen by the latents of that span and by nothing after
    it (Monet 2511.21395). Its marks and START have seen it, so they are hidden with it."""
    closes = len(backbone.tokenizer(backbone.layout.image_close, add_special_tokens=False)["input_ids"])
    shown = batch.kind[batch.spans[:, 0], batch.spans[:, 1] - 2 - closes] == IMAGE  # before its mark and START
    if not shown.any():
        return batch
    sees = causal(batch) if batch.sees is None else batch.sees.clone()
    sizes = [size + 1 for size in backbone.room(batch.images)]
    for (row, start, h, w), picture in zip(batch.spans[shown].tolist(), batch.boxes[shown, 0].tolist(), strict=True):
        sees[row, start + h * w :, start - sizes[int(picture)] : start] = False
    return replace(batch, sees=sees)
