"""Deterministic heads: the state itself, or an MLP of it."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from ...values import SizeOrZero
from .base import LatentHead

RegressionLoss = Literal["mse", "l1", "cosine"]


def regression_loss(predicted: torch.Tensor, z: torch.Tensor, kind: str) -> torch.Tensor:
    """(n, Z) and (n, Z) -> (n,) in fp32. ``mse`` and ``l1`` are means over channels, ``cosine`` is 1 - cos."""
    predicted, z = predicted.float(), z.float()
    if kind == "mse":
        return (predicted - z).square().mean(-1)
    if kind == "l1":
        return (predicted - z).abs().mean(-1)
    if kind == "cosine":
        return 1 - F.cosine_similarity(predicted, z, dim=-1)
    raise ValueError(f"loss={kind!r}: 'mse', 'l1' or 'cosine'.")


class IdentityHead(LatentHead):
    """z = h, the post-norm state itself (SkiLa 2512.16584 and SwimBird 2602.06040 with mse, Mirage 2506.17218 with
    cosine). The cosine loss leaves the norm free."""

    in_hidden_space = True

    def __init__(self, width: int, latent_width: int, loss: RegressionLoss = "mse"):
        super().__init__(width, latent_width)
        if width != latent_width:
            raise ValueError(f"an identity head needs latents as wide as states, got {latent_width} and {width}.")
        self.kind = loss

    def loss(self, h, z):
        return regression_loss(h, z, self.kind)

    def sample(self, h, context=None, noise=None):
        return h


class GLUHead(LatentHead):
    """Linear of SiLU(gate) times up, both linear in the state (LVR's other option, 2509.24251)."""

    def __init__(self, width: int, latent_width: int, loss: RegressionLoss = "mse", hidden: SizeOrZero = 0):
        super().__init__(width, latent_width)
        hidden, self.kind = hidden or 4 * width, loss
        self.gate, self.up = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, latent_width)

    def loss(self, h, z):
        return regression_loss(self.sample(h), z, self.kind)

    def sample(self, h, context=None, noise=None):
        return self.down(F.silu(self.gate(h)) * self.up(h))


class MLPHead(LatentHead):
    """LayerNorm - Linear - GELU - Linear (LVR's option, 2509.24251)."""

    def __init__(self, width: int, latent_width: int, loss: RegressionLoss = "mse", hidden: SizeOrZero = 0):
        super().__init__(width, latent_width)
        hidden, self.kind = hidden or 4 * width, loss
        self.net = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, latent_width)
        )

    def loss(self, h, z):
        return regression_loss(self.net(h), z, self.kind)

    def sample(self, h, context=None, noise=None):
        return self.net(h)
