"""The parts of the joint loss, kept apart, and how they are added up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 2**25  # so many logits of a loss stand in memory at once; 128 MB in fp32


@dataclass(frozen=True)
class Weights:
    """Weight of each part of the joint loss."""

    text: float = 1.0
    latent: float = 1.0
    stop: float = 1.0


@dataclass
class LossTerms:
    """Scalars in fp32. A part that was not computed is None and is neither added nor logged."""

    weights: Weights
    text: torch.Tensor | None = None
    latent: torch.Tensor | None = None
    stop: torch.Tensor | None = None
    figures: dict[str, torch.Tensor] = field(default_factory=dict)  # for logging only

    @property
    def total(self) -> torch.Tensor:
        parts = [
            w * part
            for w, part in (
                (self.weights.text, self.text),
                (self.weights.latent, self.latent),
                (self.weights.stop, self.stop),
            )
            if part is not None
        ]
        return torch.stack(parts).sum()

    def parts(self) -> dict[str, torch.Tensor]:
        named = {"text": self.text, "latent": self.latent, "stop": self.stop}
        return {n: p for n, p in named.items() if p is not None} | self.figures


def weighted_mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean of values under weights of the same shape; 0 where all weights are 0."""
    return (values * weight).sum() / weight.sum().clamp_min(1e-8)


def word_losses(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Next-token cross-entropy in fp32: logits (n, V), ids (n,) -> (n,)."""
    return F.cross_entropy(logits.float(), ids, reduction="none")


def stop_logprob(logits: torch.Tensor, latent: int, close: int) -> torch.Tensor:
    """(n, V) -> (n, 2) log-probabilities of going on and of closing, and nothing else (rule S5)."""
    return logits[:, [latent, close]].float().log_softmax(-1)


def in_chunks(function: Callable[..., torch.Tensor], size: int, *rows: torch.Tensor) -> torch.Tensor:
    """``function(*rows)`` of rows (n, ...), each of which becomes ``size`` logits on the way. Where that is more than
    ``LOGITS_AT_ONCE`` they are taken in chunks, whose logits are computed again in the backward pass."""
    n = max(1, LOGITS_AT_ONCE // size)
    if len(rows[0]) <= n:
        return function(*rows)
    chunks = zip(*(r.split(n) for r in rows), strict=True)
    return torch.cat([checkpoint(function, *chunk, use_reentrant=False) for chunk in chunks])
