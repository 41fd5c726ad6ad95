"""A head that reads its span so far and the images: a causal Perceiver (Latent Sketchpad 2510.24514)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ...values import Depth, Size, SizeOrZero
from .base import HeadContext, LatentHead
from .regression import RegressionLoss, regression_loss


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


def attend_to_images(x, images, missing, norms, looks):
    """x (n, k, hidden) after cross-attention to image tokens (n, T, hidden), one layer after the other; ``missing``
    (n, T) marks tokens that do not exist."""
    for norm, attention in zip(norms, looks, strict=True):
        x = x + attention(norm(x), images, images, key_padding_mask=missing, need_weights=False)[0]
    return x


class AutoregressiveHead(LatentHead):
    """Draws latent j from the state before it, the latents of its span before j and the images of its row:
    ``cross_attention_layers`` to the images, then ``depth`` causal layers, then one linear layer.

    A span may have at most ``longest`` latents. The loss is L1 (``mse`` and ``cosine`` as in the regression heads).
    """

    needs_context = True

    def __init__(
        self,
        width: int,
        latent_width: int,
        hidden: SizeOrZero = 0,
        depth: Depth = 2,
        cross_attention_layers: Depth = 1,
        heads: Size = 4,
        longest: Size = 256,
        loss: RegressionLoss = "l1",
    ):
        super().__init__(width, latent_width)
        hidden, self.kind, self.longest = hidden or width, loss, longest
        self.state, self.before = nn.Linear(width, hidden), nn.Linear(latent_width, hidden)
        self.place = nn.Embedding(longest, hidden)
        self.picture = nn.Linear(width, hidden)
        self.looks = nn.ModuleList(
            nn.MultiheadAttention(hidden, heads, batch_first=True) for _ in range(cross_attention_layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(cross_attention_layers))
        self.layers = nn.ModuleList(CausalLayer(hidden, heads) for _ in range(depth))
        self.leave = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, latent_width))

    def enter(self, h, previous, slot, images, missing):
        """States (n, k, D), the latents before them (n, k, Z) and slots (n or 1, k) -> (n, k, hidden) after
        cross-attention to the image tokens (n, T, D)."""
        x = self.state(h) + self.before(previous) + self.place(slot)
        images = self.picture(images.detach().to(h.dtype))  # the vision encoder gets no gradient from here
        return attend_to_images(x, images, missing, self.norms, self.looks)

    def span_loss(self, h, z, places, context):
        if z.shape[1] > self.longest:
            raise ValueError(f"a span of {z.shape[1]} latents, but the head was built for longest={self.longest}.")
        x = self.enter(
            h,
            F.pad(z[:, :-1], (0, 0, 1, 0)).to(h.dtype),
            torch.arange(z.shape[1], device=h.device)[None],
            *context.tokens_of_rows(),
        )
        for layer in self.layers:
            x = layer(x)
        return regression_loss(self.leave(x)[places], z[places], self.kind)

    def reset_memory(self, memory, rows):
        if memory:  # a NaN would pass through the mask of attention
            memory["drawn"][rows] = 0
            for cache in memory["cache"]:
                cache[:, rows] = 0

    def sample(self, h, context: HeadContext | None = None, noise=None):
        rows, slot, memory = context.rows, context.slot, context.memory
        if "drawn" not in memory:
            count, width = len(context.image_tokens), self.leave[0].normalized_shape[0]
            memory["drawn"] = h.new_zeros(count, self.latent_width)
            memory["cache"] = [
                h.new_zeros(2, count, layer.heads, self.longest, width // layer.heads) for layer in self.layers
            ]
        previous = torch.where((slot > 0)[:, None], memory["drawn"][rows], 0)
        x = self.enter(h[:, None], previous[:, None], slot[:, None], *context.tokens_of_rows())
        for number, layer in enumerate(self.layers):
            x, memory["cache"][number] = layer.step(x, memory["cache"][number], rows, slot)
        z = self.leave(x)[:, 0]
        memory["drawn"] = memory["drawn"].index_put((rows,), z)
        return z
