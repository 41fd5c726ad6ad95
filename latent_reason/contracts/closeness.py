"""Arithmetic and tolerances of tests that compute the same floats in two ways.

Two computations of one result (with or without a cache, a row alone or in a batch, packed or padded) add the same
numbers in a different order. So they differ by rounding, by an amount that depends on the CPU, the number of threads
and the torch build. Tests therefore never require equal floats, except for copied values.

Most tests compute both sides in float64 (the fixture ``float64``). Rounding is then about 1e-15 of a tensor, and a bug,
such as two swapped positions or a missing mask, is 1e-3 or more.

Arguments of the comparisons:
    depth: number of consecutive matrix products. A layer has four, and a backward pass as many again. The default is
        that of two layers.
    width: terms of the longest sum. The default is the width of the smallest backbones.
    scale: lower bound of the norm that errors are relative to, for differences that are zero except for rounding.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from unittest import mock

import torch
from torch.linalg import vector_norm as norm

FLOAT32, FLOAT64, CAST = torch.float32, torch.float64, torch.Tensor.float

#: Largest amplification of a rounding error by all steps. The weights of the test backbones are scaled up by 8.
SAFETY = 64


def tolerance(dtype: torch.dtype, *, depth: int = 8, width: int = 64) -> float:
    """``SAFETY * eps * sqrt(depth * width)``: 3e-13 in float64 and 2e-4 in float32 by default.

    The error of one rounding is at most eps / 2. The ``width`` roundings of a sum have independent signs, so the error
    of the sum is about ``sqrt(width) * eps`` and not ``width * eps`` (Higham and Mary, doi:10.1137/18M1226312). The
    errors of ``depth`` steps also add up in quadrature. ``SAFETY`` covers steps that amplify errors.
    """
    return SAFETY * torch.finfo(dtype).eps * math.sqrt(depth * width)


def relative_error(actual, expected, *, scale: float = 0.0) -> float:
    """``||actual - expected|| / ||expected||`` over the whole tensor, in float64; never relative to less than ``scale``.

    Raises:
        AssertionError: the shapes differ.
    """
    off = difference(actual, expected)
    return float(off / norm(as_double(expected)).clamp_min(scale)) if off else 0.0


def assert_close(actual, expected, *, depth: int = 8, width: int = 64, scale: float = 0.0) -> None:
    """Raise unless the relative error is below the tolerance of the narrower of the two dtypes.

    Tensors, numbers and sequences of numbers are compared as a whole. Mappings from names to tensors, such as
    gradients, are compared entry by entry. The error of an entry is relative to the norm of all entries, because some
    gradients are zero except for rounding (for example that of an attention's key bias).

    Example:
        >>> assert_close(torch.tensor([1.0, 2.0]), [1.0, 2.0 + 1e-7])
    """
    if isinstance(expected, Mapping):
        assert actual.keys() == expected.keys(), f"{sorted(actual)} in place of {sorted(expected)}"
        size = norm(torch.stack([norm(as_double(value)) for value in expected.values()])).clamp_min(scale)
        for name, value in expected.items():
            error = float(difference(actual[name], value) / size)
            check(error, narrower(actual[name], value), depth, width, f"{name}: ")
        return
    check(relative_error(actual, expected, scale=scale), narrower(actual, expected), depth, width)


def is_close(actual, expected, *, depth: int = 8, width: int = 64) -> bool:
    """Whether ``assert_close`` passes. For tests that two results differ by more than rounding."""
    return relative_error(actual, expected) <= tolerance(narrower(actual, expected), depth=depth, width=width)


def check(error: float, dtype: torch.dtype, depth: int, width: int, name: str = "") -> None:
    most = tolerance(dtype, depth=depth, width=width)
    assert error <= most, f"{name}relative error {error:.1e}, where {dtype} allows {most:.1e}"


def difference(actual, expected) -> torch.Tensor:
    actual, expected = as_double(actual), as_double(expected)
    assert actual.shape == expected.shape, f"shape {tuple(actual.shape)} in place of {tuple(expected.shape)}"
    return norm(actual - expected)


def as_double(x) -> torch.Tensor:
    return torch.as_tensor(x, dtype=FLOAT64).detach()


def narrower(*values) -> torch.dtype:
    """The floating dtype of lowest precision among the tensors. Without tensors, the current default dtype."""
    dtypes = [x.dtype for x in values if isinstance(x, torch.Tensor) and x.is_floating_point()]
    return max(dtypes or [torch.get_default_dtype()], key=lambda dtype: torch.finfo(dtype).eps)


@contextlib.contextmanager
def arithmetic(name: str):
    """Compute in ``"float64"``: new tensors, the models of ``make_backbone``, and every cast to float32.

    Stock models compute norms, rotary embeddings and softmax in float32 whatever their dtype, and losses too. In a
    float64 model these steps would round to seven digits, so ``torch.float32`` is replaced by float64 meanwhile.
    ``"float32"`` restores the usual arithmetic, for objects that several tests share.
    """
    dtype, cast = {"float64": (FLOAT64, torch.Tensor.double), "float32": (FLOAT32, CAST)}[name]
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with mock.patch.multiple(torch, float32=dtype, float=dtype), mock.patch.object(torch.Tensor, "float", cast):
            yield
    finally:
        torch.set_default_dtype(before)
