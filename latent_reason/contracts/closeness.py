"""Floats that are computed twice: in which arithmetic tests compute them, and how they compare them.

Two ways to one result (with a cache or without, a row alone or in a batch, packed or padded) add the same numbers in
another order, so they differ by rounding, and by how much depends on the CPU, on the number of threads and on the
build of torch. A test therefore never asks for equal floats, except of values that are copied.

Most tests compute both sides in float64 (the fixture ``float64``): rounding is then about 1e-15 of a tensor, and a
fault, such as two positions swapped or a mask left out, is 1e-3 or more.

Args of the comparisons:
    depth: matrix products that a value goes through, one after the other. A layer has four, a backward pass as many
        again. The default is that of two layers.
    width: terms of the longest sum. The default is the width of the smallest backbones.
    scale: least size to which an error is relative, for differences that may be zero but for rounding.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from unittest import mock

import torch
from torch.linalg import vector_norm as norm

from ..model.heads.denoise import euler

FLOAT32, FLOAT64, CAST = torch.float32, torch.float64, torch.Tensor.float

#: How much the steps together may magnify a rounding error. The tests' backbones have weights scaled up by 8.
SAFETY = 64


def tolerance(dtype: torch.dtype, *, depth: int = 8, width: int = 64) -> float:
    """``SAFETY * eps * sqrt(depth * width)``: 3e-13 in float64 and 2e-4 in float32 by default.

    One rounding is off by at most eps / 2. The ``width`` roundings of a sum have independent signs, so they add up to
    about ``sqrt(width) * eps`` of it, and not to ``width * eps`` (Higham and Mary, doi:10.1137/18M1226312). In the
    same way the errors of ``depth`` steps add up in quadrature. ``SAFETY`` is for steps that magnify what they get.
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
    gradients, are compared entry by entry. The error of an entry is relative to all entries together, because some
    gradients are zero but for rounding (that of the bias of the keys in an attention, for one).

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
    """Whether ``assert_close`` holds, for a test that two results differ by more than rounding."""
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
    """The floating dtype with the fewest digits, of tensors; that of today's default where there is none."""
    dtypes = [x.dtype for x in values if isinstance(x, torch.Tensor) and x.is_floating_point()]
    return max(dtypes or [torch.get_default_dtype()], key=lambda dtype: torch.finfo(dtype).eps)


@contextlib.contextmanager
def arithmetic(name: str):
    """Everything in ``"float64"``: new tensors, what ``make_backbone`` gives, and every cast to float32.

    Stock models normalise, rotate and take softmax in float32 whatever dtype they have, and losses are float32 too.
    In a model in float64 those steps would round to seven digits, so ``torch.float32`` stands for float64 meanwhile.
    ``"float32"`` is the usual arithmetic again, for what several tests share.
    """
    dtype, cast = {"float64": (FLOAT64, torch.Tensor.double), "float32": (FLOAT32, CAST)}[name]
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    euler.cache_clear()  # the one cache of the library that keeps floats
    try:
        with mock.patch.multiple(torch, float32=dtype, float=dtype), mock.patch.object(torch.Tensor, "float", cast):
            yield
    finally:
        torch.set_default_dtype(before)
        euler.cache_clear()
