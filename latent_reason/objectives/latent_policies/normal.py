"""Latents with a density around what the head gives."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F

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


class Vmf(Normal):
    """A von Mises-Fisher density of the latent's direction around that of the head's output, with concentration
    ``kappa`` (HyLaR 2604.20328): log p = kappa cos(z, mean) + a constant, which is left out. Its divergence from another
    with the same kappa is kappa A(kappa) (1 - cos) in closed form, with the Bessel ratio A of :func:`bessel_ratio`.

    As in the release, the latent is the mean itself, so that the gradient is zero until the policy has moved (see
    :class:`Vlpo`). ``fraction`` of its length as noise explores; the direction is scored all the same, as if it had been
    drawn from the density. The release leaves the directions unnormalized, which makes kappa depend on their lengths;
    here they are normalized.

    Raises:
        ValueError: a number that is not positive.
    """

    clip = 0.1

    def __init__(self, head: LatentHead, kappa: float = 0.01, fraction: float = 0.0):
        super().__init__(head)
        if kappa <= 0 or fraction < 0:
            raise ValueError(f"kappa={kappa}, fraction={fraction}: kappa must be more than 0, fraction 0 or more.")
        self.kappa, self.fraction = kappa, fraction
        self.num_draws = int(head.is_stochastic) + bool(fraction)

    def sample(self, head, h, noise):
        own = noise[:, : int(head.is_stochastic)]
        z = sample_head(head, h, own)
        if self.fraction:
            rms = z.square().mean(-1, keepdim=True).sqrt()
            z = z + (self.fraction * rms * noise[:, -1]).to(z.dtype)
        return z, torch.cat([own.to(z.dtype), z[:, None]], 1)

    def away(self, z, mean, at):
        return self.kappa * (1 - F.cosine_similarity(z, mean, dim=-1))

    def log_prob(self, head, h, record):
        z = record[:, -1].float()
        return -self.away(z, self.mean(head, h, record), z)[:, None]

    def kl(self, head, h, other, other_h, record):
        means = self.mean(head, h, record), self.mean(other, other_h, record)
        return bessel_ratio(head.latent_width, self.kappa) * self.away(*means, means[0])[:, None]


def bessel_ratio(width: int, kappa: float) -> float:
    """A(kappa) = I_{width/2}(kappa) / I_{width/2 - 1}(kappa), the length of the mean of a von Mises-Fisher density on the
    sphere in ``width`` dimensions, by its continued fraction (which does not underflow where the Bessel functions do)."""
    value = 0.0
    for order in range(60 + int(kappa), -1, -1):
        value = 1 / ((width + 2 * order) / kappa + value)
    return value


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

    A density over Z channels gives ratios that are always clipped, and a gradient many times that of the text. So
    ``norm`` tempers the log-probability: ``mean`` divides it by the number of channels, as Flow-GRPO does, ``sqrt`` by
    the root of that, and ``sum`` leaves the true ratio. The clipping range of ``mean`` is smaller accordingly.
    With a ``basis`` (Z, r) of orthonormal columns the noise, in units of ``spread``, stays in their span, and ``sum``
    counts r coordinates.
    """

    def __init__(
        self,
        head: LatentHead,
        fraction: float = 0.05,
        norm: str = "mean",
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
        self.clip = 1e-3 if norm == "mean" else 0.2
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
