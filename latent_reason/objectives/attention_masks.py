"""Attention masks of training: they make latents carry what text could otherwise read from the context.

``MixedBatch.attention_mask`` says for each position what it may attend to. Without one it is all that comes before.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ..model.backbones.base import Backbone
from ..model.batch import IMAGE, TEXT, MixedBatch


def block_causal_mask(document_ids: torch.Tensor, n: int | None = None) -> torch.Tensor:
    """Example numbers (B, m), 0 at padding (or a bool mask) -> (B, n, m): each of the last n positions (default: all)
    attends to earlier positions of its own example. Padding attends to itself, or its attention would be undefined."""
    m = document_ids.shape[1]
    at = torch.arange(m, device=document_ids.device)
    last, own = at[m - (n or m) :], document_ids[:, m - (n or m) :]
    same = (own[:, :, None] == document_ids[:, None]) & (document_ids[:, None] > 0)
    return same & (at <= last[:, None]) | (at == last[:, None])


def full_attention_mask(batch: MixedBatch) -> torch.Tensor:
    """(B, N, N) the batch's own mask, or the causal one of its examples."""
    if batch.attention_mask is not None:
        return batch.attention_mask
    return block_causal_mask(batch.mask.long() if batch.document_ids is None else batch.document_ids)


def apply_bottleneck(batch: MixedBatch, rows: torch.Tensor) -> MixedBatch:
    """The batch where, in the chosen ``rows`` (B,), text after a sketch attends neither to the input images nor to the
    text of the steps before that sketch, open tokens included, which have attended to both. What it needs must be in the
    latents, which may attend to all. The question stays visible, and it has attended to the image."""
    allowed = full_attention_mask(batch).clone()
    at = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    own = (batch.token_type == TEXT) & (batch.loss_weight > 0)
    own[batch.spans[:, 0], batch.spans[:, 1] - 1] = True  # an open token need not have a loss
    for row, start, h, w in batch.layout.spans.tolist():
        later = (batch.token_type[row] == TEXT) & (at >= start + h * w) & allowed[row, :, start]  # of the same example
        hidden = (batch.token_type[row] == IMAGE) | own[row] & (at < start)
        allowed[row] &= ~(later[:, None] & hidden & rows[row])
    return replace(batch, attention_mask=allowed)


def hide_images_from_text(batch: MixedBatch) -> MixedBatch:
    """The batch where no text attends to an image, that of the question included. What text needs of an image must
    pass through latents, which may attend to all (LIVR 2512.21218)."""
    return hide_images(batch, batch.token_type == TEXT)


def hide_images_after_spans(batch: MixedBatch) -> MixedBatch:
    """The batch where text after a span of its example attends to no image, as in decoding with ``hide_images``. Latents
    and open tokens may attend to all."""
    seen, at = full_attention_mask(batch), torch.arange(batch.ids.shape[1], device=batch.ids.device)
    rows, start = batch.spans[:, 0], batch.spans[:, 1]
    after = (at >= (start + batch.span_lengths)[:, None]) & seen[rows, :, start]  # of the same example
    hidden = torch.zeros_like(batch.ids).index_add(0, rows, after.long()) > 0
    hidden = hidden.index_put((rows, start - 1), torch.zeros_like(rows, dtype=torch.bool))
    return hide_images(batch, hidden & (batch.token_type == TEXT))


def hide_images(batch: MixedBatch, hidden: torch.Tensor) -> MixedBatch:
    """The batch where the positions ``hidden`` (B, N), which are text, attend to no image."""
    to_image = hidden[:, :, None] & (batch.token_type == IMAGE)[:, None]
    return replace(batch, attention_mask=full_attention_mask(batch) & ~to_image)


def hide_observed_images(batch: MixedBatch, backbone: Backbone) -> MixedBatch:
    """The batch where an image just before a span is visible to the latents of that span and to nothing after it
    (Monet 2511.21395). Its marks and the open token have attended to it, so they are hidden too."""
    closes = len(backbone.tokenizer(backbone.layout.image_close, add_special_tokens=False)["input_ids"])
    layout, spans = batch.layout, batch.layout.spans
    # the position before the image's closing mark and the open token
    has_image = layout.token_type[spans[:, 0], spans[:, 1] - 2 - closes] == IMAGE
    if not has_image.any():
        return batch
    allowed = full_attention_mask(batch).clone()
    assert batch.images is not None  # some position is one of an image
    sizes = [size + 1 for size in backbone.num_positions(batch.images)]
    for (row, start, h, w), (image, *_), is_shown in zip(spans.tolist(), batch.boxes, has_image, strict=True):
        if is_shown:
            allowed[row, start + h * w :, start - sizes[image] : start] = False
    return replace(batch, attention_mask=allowed)
