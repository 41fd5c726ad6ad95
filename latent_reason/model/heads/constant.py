"""The head of a span that carries nothing: a learned constant."""

from __future__ import annotations

import torch
from torch import nn

from .base import LatentHead


class ConstantHead(LatentHead):
    """z = one learned vector, whatever the state. It lives in the space of the states and is taught by nothing but the
    words after it, so it holds extra positions to compute at, and no picture."""

    raw = True

    def __init__(self, width: int, latent: int):
        super().__init__(width, latent)
        self.vector = nn.Parameter(0.02 * torch.randn(latent))

    def loss(self, h, z):
        raise NotImplementedError("a constant is not taught; give its method the latent weight 0.")

    def sample(self, h, noise=None):
        return self.vector.to(h.dtype).expand(len(h), -1)
