"""Latent heads: how a latent is drawn from the state before it. One file a kind; see :class:`LatentHead`."""

from __future__ import annotations

from .base import LatentHead
from .denoise import DiffusionHead, FlowHead
from .regression import IdentityHead, MLPHead

KINDS = {"identity": IdentityHead, "mlp": MLPHead, "diffusion": DiffusionHead, "flow": FlowHead}


def make(kind: str, width: int, latent: int, **options) -> LatentHead:
    """A head by name. Raises ValueError for an unknown kind."""
    if kind not in KINDS:
        raise ValueError(f"head={kind!r}: known heads are {', '.join(KINDS)}.")
    return KINDS[kind](width, latent, **options)


__all__ = ["DiffusionHead", "FlowHead", "IdentityHead", "LatentHead", "MLPHead", "make"]
