"""The parts of the joint loss, kept apart, and how they are added up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

MAX_LOGITS = 2**25  # logits of a loss that are in memory at once; 128 MB in fp32


@dataclass(frozen=True)
class LossWeights:
    """Weight of each part of the joint loss."""

    text: float = 1.0
    latent: float = 1.0
    stop: float = 1.0


@dataclass
class LossTerms:
    """Scalars in fp32. A part that was not computed is None; it is neither added nor logged."""

    weights: LossWeights
    text: torch.Tensor | None = None
    latent: torch.Tensor | None = None
    stop: torch.Tensor | None = None
    metrics: dict[str, torch.Tensor] = field(default_factory=dict)  # logged, no part of the loss

    @property
    def total(self) -> torch.Tensor:
        """The weighted sum of the parts."""
        w = self.weights
        weighted = ((w.text, self.text), (w.latent, self.latent), (w.stop, self.stop))
        return torch.stack([weight * part for weight, part in weighted if part is not None]).sum()

    def parts(self) -> dict[str, torch.Tensor]:
        """Name -> value of every part that was computed."""
        named = {"text": self.text, "latent": self.latent, "stop": self.stop}
        return {name: part for name, part in named.items() if part is not None}

    def scaled(self, shares: Mapping[str, torch.Tensor]) -> LossTerms:
        """The terms with every part multiplied by its share; see :func:`loss_shares`."""
        parts = {name: self.parts()[name] * share for name, share in shares.items() if name in self.parts()}
        return replace(self, **parts)


def loss_shares(own: Mapping[str, torch.Tensor], whole: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a batch counts for in each part of the loss of several batches. Each part is a weighted mean, so the part of
    all batches is the sum over batches of part * share. However the examples are cut into batches, it is the same.

    Args:
        own: weight of each part in one batch (:meth:`~.objective.Objective.loss_weights`).
        whole: the sum of these weights over all batches.
    """
    return {name: weight / whole[name].clamp_min(1e-8) for name, weight in own.items()}


def weighted_mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean of values under weights of the same shape; 0 where all weights are 0."""
    return (values * weight).sum() / weight.sum().clamp_min(1e-8)


def token_losses(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Next-token cross-entropy in fp32: logits (n, V), ids (n,) -> (n,)."""
    return F.cross_entropy(logits.float(), ids, reduction="none")


def in_chunks(function: Callable[..., torch.Tensor], vocab_size: int, *rows: torch.Tensor) -> torch.Tensor:
    """``function(*rows)`` of rows (n, ...), each of which needs ``vocab_size`` logits on the way. Where that is more
    than ``MAX_LOGITS``, rows are taken in chunks, whose logits are computed again in the backward pass."""
    n = max(1, MAX_LOGITS // vocab_size)
    if len(rows[0]) <= n:
        return function(*rows)
    chunks = zip(*(r.split(n) for r in rows), strict=True)
    return torch.cat([checkpoint(function, *chunk, use_reentrant=False) for chunk in chunks])
