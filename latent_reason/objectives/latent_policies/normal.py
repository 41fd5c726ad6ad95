"""Latents with a density around what the head gives."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch

from ...model.heads import LatentHead
from .base import LatentPolicy, sample_head

LOG_ROOT = 0.5 * math.log(2 * math.pi)


class Normal(LatentPolicy, ABC):
    """A normal density around the head's output. The record is the head's noise, if it takes any, and the latent."""

    steps = 1

    def mean(self, head: LatentHead, h: torch.Tensor, record: torch.Tensor) -> torch.Tensor:
        return sample_head(head, h, record[:, :-1]).float()

    @abstractmethod
    def away(self, z: torch.Tensor, mean: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """(n, Z), (n, Z) -> (n,) half the squared distance in units of the density's std at the latent ``at``."""

    def kl(self, head, h, other, other_h, record):
        """Exact, because both densities have the same std."""
        means = self.mean(head, h, record), self.mean(other, other_h, record)
        return self.away(*means, record[:, -1].float())[:, None]


class Vlpo(Normal):
    """Monet's VLPO (2511.21395): the latent is the mean itself, has_log_prob by a normal of spread ``sigma`` (None:
    ``relative`` times the latent's length, which says the same on any backbone).

    Its gradient is zero until the policy has moved, as nothing is explored: it acts from the second update of a
    rollout on, and then pulls to (or pushes from) what was drawn.
    """

    def __init__(self, head: LatentHead, sigma: float | None = None, relative: float = 0.15):
        super().__init__(head)
        if relative <= 0 or (sigma is not None and sigma <= 0):
            raise ValueError(f"sigma={sigma}, relative={relative}: must be more than 0.")
        self.sigma, self.relative = sigma, relative

    def sample(self, head, h, noise):
        z = sample_head(head, h, noise[:, :1])
        return z, torch.cat([noise[:, : self.num_draws], z[:, None]], 1)

    def away(self, z, mean, at):
        spread = self.relative * at.norm(dim=-1) if self.sigma is None else self.sigma
        return (z - mean).square().sum(-1) / (2 * spread**2)

    def log_prob(self, head, h, record):
        z = record[:, -1].float()
        return -self.away(z, self.mean(head, h, record), z)[:, None]


class Gaussian(Normal):
    """Noise of ``fraction`` times a channel's ``spread`` (std) on the head's output; the noise is the action.

    A density over Z channels gives ratios that are always clipped, so ``norm`` tempers the log-probability: ``sum``
    (the true ratio), ``sqrt`` or ``mean`` divide it by 1, by the root of the number of channels, or by that number.
    With a ``basis`` (Z, r) of orthonormal columns the noise stays in their span, and ``sum`` counts r coordinates.
    """

    def __init__(
        self,
        head: LatentHead,
        fraction: float = 0.05,
        norm: str = "sqrt",
        spread: float | torch.Tensor = 1.0,
        basis: torch.Tensor | None = None,
    ):
        super().__init__(head)
        if norm not in ("sum", "sqrt", "mean"):
            raise ValueError(f"norm={norm!r}: must be 'sum', 'sqrt' or 'mean'.")
        if fraction <= 0:
            raise ValueError(f"fraction={fraction}: must be more than 0, or the policy does not explore.")
        self.fraction, self.spread, self.basis = fraction, spread, basis
        self.channels = head.latent_width if basis is None else basis.shape[1]
        self.divisor = {"sum": 1, "sqrt": self.channels**0.5, "mean": self.channels}[norm]
        self.num_draws = int(head.is_stochastic) + 1

    @staticmethod
    def directions(latents: torch.Tensor, rank: int) -> torch.Tensor:
        """(Z, rank) the first principal directions of latents (n, Z). Raises ValueError for a rank they do not have."""
        if not 1 <= rank <= min(latents.shape):
            raise ValueError(f"rank={rank}: must be from 1 to {min(latents.shape)}.")
        centred = latents.float() - latents.float().mean(0)
        return torch.linalg.svd(centred, full_matrices=False).Vh[:rank].T.contiguous()

    def sample(self, head, h, noise):
        own, xi = noise[:, :-1], noise[:, -1]
        if self.basis is not None:
            xi = xi[:, : self.channels] @ self.basis.to(xi).T
        z = sample_head(head, h, own)
        z = z + (self.spread * self.fraction * xi).to(z.dtype)
        return z, torch.cat([own.to(z.dtype), z[:, None]], 1)

    def noise_of(self, z: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """(n, channels) the noise between a mean and a latent."""
        a = (z - mean) / (self.spread * self.fraction)
        return a if self.basis is None else a @ self.basis.to(a)

    def away(self, z, mean, at):
        return self.noise_of(z, mean).square().sum(-1) / 2 / self.divisor

    def log_prob(self, head, h, record):
        z = record[:, -1].float()
        volume = self.channels * (math.log(self.fraction) + LOG_ROOT)
        if self.basis is None:
            volume = (
                volume + torch.as_tensor(self.spread, device=z.device).float().expand(head.latent_width).log().sum()
            )
        return (-self.away(z, self.mean(head, h, record), z) - volume / self.divisor)[:, None]
