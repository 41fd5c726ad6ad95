"""A head that reads its span so far and the images: a causal Perceiver (Latent Sketchpad 2510.24514)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ...values import Depth, Size, SizeOrZero
from .base import HeadContext
from .regression import RegressionLoss, regression_loss
from .span_layers import SpanHead


class AutoregressiveHead(SpanHead):
    """Draws latent j from the state before it, the latents of its span before j and the images of its row:
    ``cross_attention_layers`` to the images, then ``depth`` causal layers, then one linear layer.

    A span may have at most ``longest`` latents. The loss is L1 (``mse`` and ``cosine`` as in the regression heads).
    """

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
        self.build_layers(hidden, depth, cross_attention_layers, heads)

    def enter(self, h, previous, slot, images, missing):
        """States (n, k, D), the latents before them (n, k, Z) and slots (n or 1, k) -> (n, k, hidden) after
        cross-attention to the image tokens (n, T, D)."""
        x = self.state(h) + self.before(previous) + self.place(slot)
        return self.attend_to_images(x, self.embed_images(images, h.dtype), missing)

    def predict_span(self, h: torch.Tensor, z: torch.Tensor, context: HeadContext) -> torch.Tensor:
        """States (S, K, D) and targets (S, K, Z) of whole spans -> each latent from the targets before it (S, K, Z)."""
        self.check_length(z.shape[1])
        x = self.enter(
            h,
            F.pad(z[:, :-1], (0, 0, 1, 0)).to(h.dtype),
            torch.arange(z.shape[1], device=h.device)[None],
            *context.tokens_of_rows(),
        )
        return self.pass_span(x)

    def span_loss(self, h, z, places, context):
        return regression_loss(self.predict_span(h, z, context)[places], z[places], self.kind)

    def sample(self, h, context: HeadContext | None = None, noise=None):
        rows, slot, memory = context.rows, context.slot, context.memory
        self.start_memory(memory, h, len(context.image_tokens), self.latent_width)
        previous = torch.where((slot > 0)[:, None], memory["kept"][rows], 0)
        x = self.enter(h[:, None], previous[:, None], slot[:, None], *context.tokens_of_rows())
        z = self.pass_slot(x, memory, rows, slot)
        memory["kept"] = memory["kept"].index_put((rows,), z)
        return z
