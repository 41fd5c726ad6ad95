"""Arithmetic that does not depend on what else is computed: a rollout and its replay then agree to the bit.

A matrix product adds up in an order that its library chooses by the size of the matrix, so a state computed in a batch,
from a cache or in one parallel pass differs in its last digits. Inside :func:`batch_invariant` every position is
multiplied by itself, and every query attends to the keys it may see and to no padding. This is slow, and meant for the
CPU: to tell rounding from a fault, and to test that replay is the rollout.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


@contextmanager
def batch_invariant() -> Iterator[None]:
    """Compute linear layers and attention position by position.

    Example:
        >>> with batch_invariant():
        ...     rollout = generate(reasoner, prompt, temperature=1.0)
        ...     assert torch.equal(replay(reasoner, rollout).text, rollout.log_prob)
    """
    with _PositionByPosition():
        yield


class _PositionByPosition(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.linear:
            return linear(*args, **kwargs or {})
        if function is F.scaled_dot_product_attention:
            return attention(*args, **kwargs or {})
        return function(*args, **kwargs or {})


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """(..., K) -> (..., M), one matrix-vector product a position."""
    rows = [torch.mv(weight, row) for row in x.reshape(-1, x.shape[-1])]
    out = torch.stack(rows) if rows else x.new_zeros(0, len(weight))
    out = out.unflatten(0, x.shape[:-1]) if x.ndim != 2 else out
    return out if bias is None else out + bias


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """(B, heads, n, d) queries over (B, heads, m, d) keys: each query over the keys that it may see alone."""
    n, m = query.shape[2], key.shape[2]
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    allowed = torch.ones(n, m, dtype=torch.bool, device=query.device)
    if is_causal:
        allowed = allowed.tril()
    if attn_mask is not None:
        allowed = attn_mask if attn_mask.dtype == torch.bool else attn_mask > torch.finfo(attn_mask.dtype).min / 2
    allowed = allowed.expand(*query.shape[:2], n, m)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale

    def attend(b: int, head: int, at: int) -> torch.Tensor:
        seen = allowed[b, head, at].nonzero()[:, 0]
        if not len(seen):
            return torch.zeros_like(value[b, head, 0])
        weights = (torch.mv(key[b, head, seen], query[b, head, at]) * scale).softmax(-1)
        return torch.mv(value[b, head, seen].T.contiguous(), weights)

    shape = query.shape[:3]
    rows: list[Any] = [attend(*place) for place in torch.cartesian_prod(*map(torch.arange, shape)).tolist()]
    return torch.stack(rows).unflatten(0, shape)
