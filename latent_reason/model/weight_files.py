"""What safetensors files hold, from their headers alone, and whether weights are finite."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open

#: names of dtypes in safetensors -> in torch; others are no weights of this library
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Stored(NamedTuple):
    """Shape and dtype of a stored tensor; the dtype is None where it is not of floating point."""

    shape: tuple[int, ...]
    dtype: str | None


def read_header(file: Path) -> dict[str, Stored]:
    """Name -> shape and dtype. Raises SafetensorError if the file is none."""
    with safe_open(file, "pt") as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}
        return {n: Stored(tuple(s.get_shape()), DTYPES.get(s.get_dtype())) for n, s in slices.items()}


def read_headers(folder: Path) -> dict[str, Stored]:
    """:func:`read_header` of all weights of a stock model in a folder.

    Raises:
        ValueError: there are none.
    """
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise ValueError(f"'{folder}' holds no weights (model.safetensors). Copy it again.")
    return {name: stored for file in files for name, stored in read_header(file).items()}


def count_values(shapes: Iterable[tuple[int, ...]]) -> int:
    """The number of values of tensors of these shapes."""
    return sum(math.prod(shape) for shape in shapes)


def find_not_finite(weights: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """The name of the first tensor with NaN or infinity; None if all are finite. A sum finds out without memory: NaN
    and infinity stay in it. Where it overflows, every value is looked at."""
    for name, value in weights:
        if value.is_floating_point() and not value.is_meta:
            if not value.sum(dtype=torch.float32).isfinite() and not value.isfinite().all():
                return name
    return None


def check_finite(weights: Iterable[tuple[str, torch.Tensor]], where: str) -> None:
    """Raises ValueError, with ``where`` as its subject, if a weight is NaN or infinite."""
    if name := find_not_finite(weights):
        raise ValueError(
            f"{where} weights that are not finite: {name} has NaN or infinity. Use an earlier checkpoint, or train again "
            "with a lower learning rate."
        )
