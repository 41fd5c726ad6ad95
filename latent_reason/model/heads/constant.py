"""The head of the blank control: a learned constant."""

from __future__ import annotations

import torch
from torch import nn

from .base import LatentHead


class ConstantHead(LatentHead):
    """z = one learned vector, whatever the state. It lives in the space of the states and gets its gradient from the
    text after it only. So a span gives extra positions to compute at, and no image."""

    in_hidden_space = True

    def __init__(self, width: int, latent_width: int):
        super().__init__(width, latent_width)
        self.vector = nn.Parameter(0.02 * torch.randn(latent_width))

    def sample(self, h, context=None, noise=None):
        return self.vector.to(h.dtype).expand(len(h), -1)
