"""A head that draws all latents of a span from one state and the images (after SCOLAR 2605.12163)."""

from __future__ import annotations

import torch
from torch import nn

from ...values import Depth, Size, SizeOrZero
from .base import HeadContext
from .regression import RegressionLoss, regression_loss
from .span_layers import SpanHead


class WholeSpanHead(SpanHead):
    """Draws every latent of a span from the state before its first and the images of its row: a learned query a slot
    plus the state, ``cross_attention_layers`` to the images, ``depth`` layers of self-attention over the slots, one
    linear layer. No latent is read on the way, so errors of early latents do not reach late ones, and the backbone may
    read a whole span in one pass.

    A slot attends to the slots before it only. In decoding the length of a span may be unknown when it begins, and so
    its first latents must not depend on the number of those that follow. A span may have at most ``longest`` latents.
    SCOLAR attends to the states of the whole sequence, which the loss of a head does not get here. With
    ``cross_attention_layers=0`` one state must hold all of the sketch (paper_figs/data/heads_quick.json).
    """

    draws_whole_span = True

    def __init__(
        self,
        width: int,
        latent_width: int,
        hidden: SizeOrZero = 0,
        depth: Depth = 2,
        cross_attention_layers: Depth = 1,
        heads: Size = 4,
        longest: Size = 256,
        loss: RegressionLoss = "mse",
    ):
        super().__init__(width, latent_width)
        hidden, self.kind, self.longest = hidden or width, loss, longest
        self.state, self.place = nn.Linear(width, hidden), nn.Embedding(longest, hidden)
        self.build_layers(hidden, depth, cross_attention_layers, heads, has_images=cross_attention_layers > 0)

    def enter(self, h: torch.Tensor, places: torch.Tensor, context: HeadContext | None) -> torch.Tensor:
        """States (n, D) and embedded slots (k or n x k, hidden) -> (n, k, hidden) after cross-attention."""
        x = self.state(h)[:, None] + places
        if self.picture is None:
            return x
        assert context is not None
        images, missing = context.tokens_of_rows()
        images = self.embed_images(images, h.dtype) + self.places_of_images(context)
        return self.attend_to_images(x, images, missing)

    def places_of_images(self, context: HeadContext) -> torch.Tensor:
        """(n, T, hidden) the embedded slot of each token of a row's last image, zero for other tokens. A slot then finds
        its place in the image that the sketch changes; tokens of an encoder need not say where they are."""
        there = context.image_mask[context.rows]
        first = there.sum(1) - context.last_image_length[context.rows]
        slot = torch.arange(there.shape[1], device=there.device) - first[:, None]
        return self.place(slot.clamp(0, self.longest - 1)) * (there & (slot >= 0))[..., None]

    def draw_span(self, h, length, context=None):
        """As in the base class.

        Raises:
            ValueError: a span is longer than ``longest``.
        """
        self.check_length(length)
        return self.pass_span(self.enter(h, self.place.weight[:length], context))

    def span_loss(self, h, z, places, context):
        return regression_loss(self.draw_span(h[:, 0], z.shape[1], context)[places], z[places], self.kind)

    def sample(self, h, context: HeadContext | None = None, noise=None):
        """The latents of :meth:`draw_span` one after the other. At slot 0 the state of a row is kept in the memory; later
        states are not read. Each call computes one slot, with the keys and values of the slots before it."""
        rows, slot, memory = context.rows, context.slot, context.memory
        self.start_memory(memory, h, len(context.image_tokens), self.width)
        first = torch.where((slot == 0)[:, None], h, memory["kept"][rows])
        memory["kept"] = memory["kept"].index_put((rows,), first)
        return self.pass_slot(self.enter(first, self.place(slot)[:, None], context), memory, rows, slot)
