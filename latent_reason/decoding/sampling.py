"""Random numbers of decoding, and how a token is chosen with them.

A random number is a hash of a counter, computed in tensor operations on the device: nothing is drawn on the host, and
no batch, slot or order of admission changes the numbers of a row. The hash is the finalizer of SplitMix64 (Steele, Lea
and Flood 2014).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

#: purposes of a random number: a token, a stop decision, a latent
TOKEN, STOP, NOISE = range(3)
# constants of SplitMix64 as signed 64-bit integers, and one of PCG for positions
_GOLDEN, _FIRST, _SECOND, _POSITION = (
    -7046029254386353131,
    -4658895280553007687,
    -7723592293110705685,
    6364136223846793005,
)
_BITS = 23  # of a uniform number, so that 1 - 2^-23 times a float32 is less than it


def row_keys(seed: int | Sequence[int], row_ids: Sequence[int]) -> torch.Tensor:
    """(n,) int64: where the counter of each row begins. Rows are named by any integers, and may have seeds of their own."""
    names = zip(seed if isinstance(seed, Sequence) else [seed] * len(row_ids), row_ids, strict=True)
    digests = (hashlib.blake2b(f"{own}/{row}".encode(), digest_size=8).digest() for own, row in names)
    return torch.tensor([int.from_bytes(digest, "big", signed=True) for digest in digests], dtype=torch.long)


def _bits(x: torch.Tensor) -> torch.Tensor:
    """Counters, int64 -> float32 integers from -2^22 to 2^22 - 1 of the same shape, all equally likely: the first bits
    of their hash. Shifts of torch copy the sign, which takes one bit of the counter's 64."""
    x = (x ^ (x >> 30)) * _FIRST
    return (((x ^ (x >> 27)) * _SECOND) >> (64 - _BITS)).float()


def uniform(keys: torch.Tensor, position: torch.Tensor, purpose: int) -> torch.Tensor:
    """(n,) float32 uniform numbers in [0, 1), one for each row with ``keys`` (n,) at ``position`` (n,)."""
    return _bits(keys + (position * _POSITION + purpose)) * 2.0**-_BITS + 0.5


def normal(keys: torch.Tensor, position: torch.Tensor, counters: torch.Tensor) -> torch.Tensor:
    """(n, k) float32 standard normal numbers for each row, by the inverse of the normal distribution function.
    ``counters`` (k,) are those of :func:`noise_counters`."""
    bits = _bits((keys + position * _POSITION)[:, None] + counters)
    return torch.erfinv(bits * 2.0 ** (1 - _BITS) + 2.0**-_BITS) * 2**0.5


def noise_counters(size: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """(size,) counters of the normal numbers of one draw."""
    return torch.arange(1, size + 1, device=device) * _GOLDEN + NOISE


def shift_keys(keys: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Keys (n,) that give at position p + start (n,) what ``keys`` give at position p."""
    return keys - start * _POSITION


def sampling_log_probs(logits: torch.Tensor, temperature: float, top_p: float = 1.0, top_k: int = 0) -> torch.Tensor:
    """Log-probabilities (n, V) under temperature, top-k and nucleus sampling (1904.09751); -inf outside of what is
    kept. ``top_k`` 0 keeps all."""
    scores = (logits / temperature).log_softmax(-1)
    if 0 < top_k < scores.shape[-1]:
        least = scores.topk(top_k).values[:, -1:]
        scores = scores.masked_fill(scores < least, float("-inf")).log_softmax(-1)
    if top_p >= 1:
        return scores
    order = scores.argsort(-1, descending=True)
    probs = scores.gather(-1, order).exp()
    outside = torch.zeros_like(probs, dtype=torch.bool).scatter(-1, order, probs.cumsum(-1) - probs >= top_p)
    return scores.masked_fill(outside, float("-inf")).log_softmax(-1)


def sample_tokens(log_probs: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Ids (n,) sampled from (n, V) by the inverse of the distribution function, with one uniform number u (n,) a row.

    Tokens stand in the order of their ids, not of their probability, so that rounding cannot exchange two of them. A row
    of NaN gets any id."""
    cumulative = log_probs.exp().cumsum(-1)
    found = torch.searchsorted(cumulative, cumulative[:, -1:] * u[:, None], right=True)[:, 0]
    return found.clamp_max(log_probs.shape[-1] - 1)
