"""Counter-based randomness of decoding: noise is keyed by (seed, row id, position), so a batch cannot change the draw
of a row."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch


def keyed_generator(seed: int, row: int, position: int, purpose: str) -> torch.Generator:
    """A generator that depends on its key only."""
    key = hashlib.blake2b(f"{seed}/{row}/{position}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(key, "big") >> 1)


def keyed_uniform(seed: int, rows: Sequence[int], position: int, purpose: str, size: int) -> torch.Tensor:
    """(n, size) uniform numbers, one key a row, on the CPU."""
    return torch.stack([torch.rand(size, generator=keyed_generator(seed, row, position, purpose)) for row in rows])


def keyed_normal(seed: int, rows: Sequence[int], position: int, purpose: str, *size: int) -> torch.Tensor:
    """(n, *size) standard normal numbers, one key a row, on the CPU."""
    return torch.stack([torch.randn(*size, generator=keyed_generator(seed, row, position, purpose)) for row in rows])


def sampling_log_probs(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """Log-probabilities (n, V) under temperature and nucleus sampling (1904.09751); -inf outside the nucleus."""
    scores = (logits / temperature).log_softmax(-1)
    if top_p >= 1:
        return scores
    order = scores.argsort(-1, descending=True)
    probs = scores.gather(-1, order).exp()
    outside = torch.zeros_like(probs, dtype=torch.bool).scatter(-1, order, probs.cumsum(-1) - probs >= top_p)
    return scores.masked_fill(outside, float("-inf")).log_softmax(-1)


def gumbel_argmax(log_probs: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Ids (n,) sampled from (n, V) with uniform numbers of the same shape."""
    return (log_probs - (-uniform.clamp_min(1e-20).log()).log()).argmax(-1)
