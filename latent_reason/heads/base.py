"""The interface of a head."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn


class LatentHead(nn.Module, ABC):
    """Draws latents of width Z from states of width D. All else hides behind ``loss`` and ``sample``.

    ``raw`` heads draw in the space of the backbone's own states; the reasoner standardises what they draw before the
    loss and feeds it back as it is. The others live in the standardised space.
    """

    raw: bool = False
    noise: bool = False  # whether a draw is random
    looks: bool = False  # whether it is shown the pictures of its row: ``sample(..., seen)``

    def __init__(self, width: int, latent: int):
        super().__init__()
        self.width, self.latent = width, latent

    @abstractmethod
    def loss(self, h: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """States (n, D) and targets (n, Z) -> losses (n,), in fp32."""

    @abstractmethod
    def sample(self, h: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """States (n, D) and standard normal noise (n, Z) -> latents (n, Z). A head that ``looks`` takes ``seen`` after
        them: picture tokens (n, T, D) and which of them are there (n, T)."""
