"""Latent heads: how a latent is drawn from the state before it. One file a kind; see :class:`LatentHead`."""

from __future__ import annotations

import inspect

from ...errors import did_you_mean
from .autoregressive import AutoregressiveHead
from .base import Context, LatentHead
from .constant import ConstantHead
from .denoise import DiffusionHead, FlowHead
from .gaussian import GaussianHead
from .pads import PadHead
from .regression import IdentityHead, MLPHead

KINDS = {
    "identity": IdentityHead,
    "mlp": MLPHead,
    "gaussian": GaussianHead,
    "diffusion": DiffusionHead,
    "flow": FlowHead,
    "autoregressive": AutoregressiveHead,
}


def make(kind: str, width: int, latent: int, **options) -> LatentHead:
    """A head by name. Raises ValueError for an unknown kind or option."""
    if kind not in KINDS:
        raise ValueError(f"head={kind!r}: known heads are {', '.join(KINDS)}.")
    known = list(inspect.signature(KINDS[kind]).parameters)[2:]
    for option in options:
        if option not in known:
            raise ValueError(f"head {kind!r} has no option {option!r}. {did_you_mean(option, known)}")
    return KINDS[kind](width, latent, **options)


__all__ = [
    "AutoregressiveHead",
    "ConstantHead",
    "Context",
    "DiffusionHead",
    "FlowHead",
    "GaussianHead",
    "IdentityHead",
    "LatentHead",
    "MLPHead",
    "PadHead",
    "make",
]
