"""Heads that read no state: a learned constant, and a learned token a slot."""

from __future__ import annotations

import torch
from torch import nn

from ...values import Size
from .base import LatentHead


class ConstantHead(LatentHead):
    """z = one learned vector, whatever the state. It lives in the space of the states and gets its gradient from the
    text after it only. So a span gives extra positions to compute at, and no image."""

    in_hidden_space = is_constant = True

    def __init__(self, width: int, latent_width: int):
        super().__init__(width, latent_width)
        self.vector = nn.Parameter(0.02 * torch.randn(latent_width))

    def sample(self, h, context=None, noise=None):
        return self.vector.to(h.dtype).expand(len(h), -1)


class LearnedTokensHead(LatentHead):
    """z = one learned vector a slot, whatever the state (LIVR 2512.21218). They live in the space of the states and get
    their gradient from the text after them. A slot after the last one has the last vector."""

    in_hidden_space = is_constant = reads_slot = True

    def __init__(self, width: int, latent_width: int, slots: Size = 16):
        super().__init__(width, latent_width)
        self.tokens = nn.Embedding(slots, latent_width)
        nn.init.normal_(self.tokens.weight, std=0.02)

    def sample(self, h, context=None, noise=None, slot=None):
        return self.tokens(slot.clamp_max(self.tokens.num_embeddings - 1)).to(h.dtype)
