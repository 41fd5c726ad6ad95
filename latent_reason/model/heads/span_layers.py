"""What heads that read a whole span share: causal layers over its latents, and attention to the images of its row."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .base import LatentHead


class CausalLayer(nn.Module):
    """Pre-norm self-attention over a span, then an MLP; a step may be taken with the keys of the steps before it."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def split(self, x):
        """(n, k, width) -> q, k, v of (n, heads, k, width / heads)."""
        return (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, -1))

    def attend(self, x, q, k, v, mask=None):
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        x = x + self.out(out.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))

    def forward(self, x):
        return self.attend(x, *self.split(x))

    def step(self, x, cache, rows, slot):
        """x (n, 1, width) at ``slot`` of spans ``rows``; ``cache`` (2, R, heads, K, ...) holds keys and values so far.
        Returns the result and the new cache."""
        q, k, v = self.split(x)
        cache = cache.clone() if cache.requires_grad or k.requires_grad else cache
        cache[:, rows, :, slot] = torch.stack([k[:, :, 0], v[:, :, 0]], 1)  # (n, 2, heads, ...)
        past = torch.arange(cache.shape[3], device=x.device) <= slot[:, None]
        return self.attend(x, q, *cache[:, rows], mask=past[:, None, None]), cache


class SpanHead(LatentHead):
    """A head whose latents pass ``cross_attention_layers`` to the images of their row, ``depth`` causal layers over
    their span and one linear layer. A span may have at most ``longest`` latents."""

    needs_context = True
    longest: int

    def build_layers(
        self, hidden: int, depth: int, cross_attention_layers: int, heads: int, has_images: bool = True
    ) -> None:
        """Make the layers. A subclass makes what enters them before."""
        self.picture = nn.Linear(self.width, hidden) if has_images else None
        self.looks = nn.ModuleList(
            nn.MultiheadAttention(hidden, heads, batch_first=True) for _ in range(cross_attention_layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(cross_attention_layers))
        self.layers = nn.ModuleList(CausalLayer(hidden, heads) for _ in range(depth))
        self.leave = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, self.latent_width))

    def check_length(self, length: int) -> None:
        """Raises ValueError for a span that is longer than ``longest``."""
        if length > self.longest:
            raise ValueError(f"a span of {length} latents, but the head was built for longest={self.longest}.")

    def embed_images(self, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Image tokens (n, T, D) -> (n, T, hidden). The vision encoder gets no gradient from here."""
        assert self.picture is not None  # as the caller has seen
        return self.picture(images.detach().to(dtype))

    def attend_to_images(self, x: torch.Tensor, images: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        """x (n, k, hidden) after cross-attention to image tokens (n, T, hidden), one layer after the other; ``missing``
        (n, T) marks tokens that do not exist."""
        for norm, attention in zip(self.norms, self.looks, strict=True):
            x = x + attention(norm(x), images, images, key_padding_mask=missing, need_weights=False)[0]
        return x

    def pass_span(self, x: torch.Tensor) -> torch.Tensor:
        """What enters for whole spans (n, k, hidden) -> latents (n, k, Z)."""
        for layer in self.layers:
            x = layer(x)
        return self.leave(x)

    def pass_slot(
        self, x: torch.Tensor, memory: dict[str, Any], rows: torch.Tensor, slot: torch.Tensor
    ) -> torch.Tensor:
        """The same for one latent of each of ``rows`` (n,) at ``slot`` (n,), with the keys and values of the slots before
        it: (n, 1, hidden) -> (n, Z)."""
        for number, layer in enumerate(self.layers):
            x, memory["cache"][number] = layer.step(x, memory["cache"][number], rows, slot)
        return self.leave(x)[:, 0]

    def start_memory(self, memory: dict[str, Any], h: torch.Tensor, count: int, width: int) -> None:
        """Make room in the memory for ``count`` rows, unless there is some: keys and values of each layer, and for each
        row a vector of ``width``, which the subclass keeps under ``kept``."""
        if memory:
            return
        hidden = self.leave[0].normalized_shape[0]
        memory["kept"] = h.new_zeros(count, width)
        memory["cache"] = [
            h.new_zeros(2, count, layer.heads, self.longest, hidden // layer.heads) for layer in self.layers
        ]

    def reset_memory(self, memory, rows):
        if memory:  # a NaN would pass through the mask of attention
            memory["kept"][rows] = 0
            for cache in memory["cache"]:
                cache[:, rows] = 0
