"""A head that adds noise of a known spread to a regression mean, so that a latent has a density."""

from __future__ import annotations

import math

import torch

from ...values import Positive, SizeOrZero
from .base import LatentHead
from .regression import MLPHead


class GaussianHead(LatentHead):
    """z = mean(h) + sigma * noise, the mean an MLP trained by regression (maximum likelihood for a fixed sigma; the policy of Monet's VLPO, 2511.21395). ``sigma`` is in units of the standardised space, where a channel has
    std 1: 0.15 rotates a latent by about 9 degrees."""

    is_stochastic = True

    def __init__(self, width: int, latent_width: int, sigma: Positive = 0.15, hidden: SizeOrZero = 0):
        super().__init__(width, latent_width)
        if sigma <= 0:
            raise ValueError(f"sigma={sigma}: must be more than 0. Use the head 'mlp' for no noise.")
        self.mean, self.sigma = MLPHead(width, latent_width, hidden=hidden), sigma

    def loss(self, h, z):
        return self.mean.loss(h, z)

    def sample(self, h, context=None, noise=None):
        mean = self.mean.net(h)
        return mean + self.sigma * (torch.randn_like(mean) if noise is None else noise.to(mean.dtype))

    def log_prob(self, h: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """States (n, D) and latents (n, Z) -> log densities (n,), in fp32, summed over channels."""
        away = (z.float() - self.mean.net(h).float()) / self.sigma
        return -0.5 * away.square().sum(-1) - self.latent_width * (math.log(self.sigma) + 0.5 * math.log(2 * math.pi))
