"""A head that draws all latents of a span from one state (after SCOLAR 2605.12163)."""

from __future__ import annotations

import torch
from torch import nn

from ...values import Depth, Size, SizeOrZero
from .autoregressive import CausalLayer
from .base import HeadContext, LatentHead
from .regression import RegressionLoss, regression_loss


class WholeSpanHead(LatentHead):
    """Draws every latent of a span from the state before its first: a learned query a slot plus the state, ``depth``
    layers of self-attention over the slots, one linear layer. No latent is read on the way, so errors of early latents
    do not reach late ones, and the backbone may read a whole span in one pass.

    A slot attends to the slots before it only. In decoding the length of a span may be unknown when it begins, and so
    its first latents must not depend on the number of those that follow. A span may have at most ``longest`` latents.
    SCOLAR attends to the states of the whole sequence. This head reads one state, as the other heads do, so that any
    method takes it; layers and losses are ours.
    """

    needs_context = draws_whole_span = True

    def __init__(
        self,
        width: int,
        latent_width: int,
        hidden: SizeOrZero = 0,
        depth: Depth = 2,
        heads: Size = 4,
        longest: Size = 256,
        loss: RegressionLoss = "mse",
    ):
        super().__init__(width, latent_width)
        hidden, self.kind, self.longest = hidden or width, loss, longest
        self.state, self.place = nn.Linear(width, hidden), nn.Embedding(longest, hidden)
        self.layers = nn.ModuleList(CausalLayer(hidden, heads) for _ in range(depth))
        self.leave = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, latent_width))

    def draw_span(self, h: torch.Tensor, length: int) -> torch.Tensor:
        """States (n, D) before the first latents of spans -> their latents (n, length, Z).

        Raises:
            ValueError: a span is longer than ``longest``.
        """
        if length > self.longest:
            raise ValueError(f"a span of {length} latents, but the head was built for longest={self.longest}.")
        x = self.state(h)[:, None] + self.place.weight[:length]
        for layer in self.layers:
            x = layer(x)
        return self.leave(x)

    def span_loss(self, h, z, places, context):
        return regression_loss(self.draw_span(h[:, 0], z.shape[1])[places], z[places], self.kind)

    def sample(self, h, context: HeadContext | None = None, noise=None):
        """The latents of :meth:`draw_span` one after the other. At slot 0 the state of a row is kept in the memory; later
        states are not read. Each call computes one slot, with the keys and values of the slots before it."""
        rows, slot, memory = context.rows, context.slot, context.memory
        if "first" not in memory:
            count, width = len(context.image_tokens), self.place.embedding_dim
            memory["first"] = h.new_zeros(count, self.width)
            memory["cache"] = [
                h.new_zeros(2, count, layer.heads, self.longest, width // layer.heads) for layer in self.layers
            ]
        first = torch.where((slot == 0)[:, None], h, memory["first"][rows])
        memory["first"] = memory["first"].index_put((rows,), first)
        x = (self.state(first) + self.place(slot))[:, None]
        for number, layer in enumerate(self.layers):
            x, memory["cache"][number] = layer.step(x, memory["cache"][number], rows, slot)
        return self.leave(x)[:, 0]
