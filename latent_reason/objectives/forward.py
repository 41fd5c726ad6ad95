"""One parallel pass of a training batch through the text model, packed or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..model.backbones.base import Backbone
from ..model.batch import MixedBatch
from .attention_masks import block_causal_mask
from .packing import call_text_model_varlen, unpack_documents

if TYPE_CHECKING:
    from transformers.cache_utils import Cache


def batch_position_ids(backbone: Backbone, batch: MixedBatch) -> torch.Tensor:
    """Position ids (axes, B, N) of a batch; those of packed examples each start at 0."""
    if batch.document_lengths is None:
        return backbone.position_ids(batch)
    alone, row, position = unpack_documents(batch)
    return backbone.position_ids(alone)[:, row, position]


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
    if batch.attention_mask is not None:
        mask = batch.attention_mask[:, start:stop, :stop]
    elif batch.document_ids is None:
        mask = batch.mask[:, :stop]
    elif backbone.attn_implementation in ("sdpa", "eager") or options.get("past_key_values") is not None:
        mask = block_causal_mask(batch.document_ids[:, :stop], embeds.shape[1])
    else:
        return call_text_model_varlen(backbone, embeds, batch.document_ids, positions, **options)
    return backbone.call_text_model(embeds, mask, positions, **options)
