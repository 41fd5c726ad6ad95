"""One parallel pass of a training batch through the text model, packed or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..model.backbones.base import Backbone
from ..model.batch import MixedBatch
from .attention_masks import block_causal_mask
from .packing import call_text_model_varlen

if TYPE_CHECKING:
    from transformers.cache_utils import Cache


def forward_batch(
    backbone: Backbone,
    batch: MixedBatch,
    embeds: torch.Tensor,
    positions: torch.Tensor,
    *,
    start: int = 0,
    stop: int | None = None,
    cache: Cache | None = None,
) -> torch.Tensor:
    """Last hidden states (B, n, D) of the positions ``start`` to ``stop`` of a batch, whose inputs are ``embeds``
    (B, n, D + extra_width); earlier positions are in ``cache``.

    Raises:
        ValueError: a mask for each position under flash attention, which takes none.
    """
    out = _call(backbone, batch, embeds, positions, start, stop, past_key_values=cache, use_cache=cache is not None)
    return out.last_hidden_state


def all_hidden_states(
    backbone: Backbone, batch: MixedBatch, embeds: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    """States after every layer (L, B, N, D); the last are those of :func:`forward_batch`. Raises as it does."""
    out = _call(backbone, batch, embeds, positions, 0, None, use_cache=False, output_hidden_states=True)
    return torch.stack(out.hidden_states[1:])


def _call(backbone, batch, embeds, positions, start, stop, **options: Any):
    has_cache = options.get("past_key_values") is not None
    takes_full_mask = backbone.attn_implementation in ("sdpa", "eager")
    # the stock model reads a mask (B, N) from the device; it is given one where it can then leave it out
    needs_full_mask = has_cache or batch.layout.has_padding
    if batch.attention_mask is not None:
        mask = batch.attention_mask[:, start:stop, :stop]
    elif batch.document_ids is not None and not takes_full_mask and not has_cache:
        return call_text_model_varlen(backbone, batch, embeds, positions, **options)
    elif batch.document_ids is not None or (takes_full_mask and needs_full_mask):
        examples = batch.mask.long() if batch.document_ids is None else batch.document_ids
        mask = block_causal_mask(examples[:, :stop], embeds.shape[1])
    else:
        mask = batch.mask[:, :stop]
    return backbone.call_text_model(embeds, mask, positions, **options)
