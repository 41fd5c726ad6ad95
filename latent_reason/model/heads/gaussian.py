"""A head that draws around a regression mean with a spread that is known, so that a latent has a density."""

from __future__ import annotations

import math

import torch

from .base import LatentHead
from .regression import MLPHead


class GaussianHead(LatentHead):
    """z = mean(h) + sigma * noise, the mean an MLP taught by regression (which is maximum likelihood where sigma is
    given; the policy of Monet's VLPO, 2511.21395). ``sigma`` is in units of the standardised space, where a channel has
    std 1: 0.15 turns a latent by about 9 degrees."""

    noise = True

    def __init__(self, width: int, latent: int, sigma: float = 0.15, hidden: int = 0):
        super().__init__(width, latent)
        if sigma <= 0:
            raise ValueError(f"sigma={sigma}: more than 0. Without a spread the head is 'mlp'.")
        self.mean, self.sigma = MLPHead(width, latent, hidden=hidden), sigma

    def loss(self, h, z):
        return self.mean.loss(h, z)

    def sample(self, h, noise=None):
        mean = self.mean.net(h)
        return mean + self.sigma * (torch.randn_like(mean) if noise is None else noise.to(mean.dtype))

    def log_prob(self, h: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """States (n, D) and latents (n, Z) -> log densities (n,), in fp32, summed over channels."""
        away = (z.float() - self.mean.net(h).float()) / self.sigma
        return -0.5 * away.square().sum(-1) - self.latent * (math.log(self.sigma) + 0.5 * math.log(2 * math.pi))
