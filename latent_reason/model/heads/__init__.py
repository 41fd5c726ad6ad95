"""Latent heads: how a latent is drawn from the state before it. One file a kind; see :class:`LatentHead`.

Example:
    >>> make("flow", 64, 64, hidden=128)              # a head of this package
    >>> make("my_pkg.heads.MyHead", 64, 64)           # a LatentHead of your own, by dotted path
"""

from __future__ import annotations

import inspect

from ...errors import did_you_mean
from ...imports import import_object, is_dotted_path
from .autoregressive import AutoregressiveHead
from .base import HeadContext, LatentHead
from .constant import ConstantHead, LearnedTokensHead
from .denoise import DiffusionHead, FlowHead
from .gaussian import GaussianHead
from .mean_flow import MeanFlowHead
from .pads import PadHead
from .regression import GLUHead, IdentityHead, MLPHead
from .whole_span import WholeSpanHead

KINDS = {
    "identity": IdentityHead,
    "mlp": MLPHead,
    "gaussian": GaussianHead,
    "diffusion": DiffusionHead,
    "flow": FlowHead,
    "mean_flow": MeanFlowHead,
    "autoregressive": AutoregressiveHead,
    "whole_span": WholeSpanHead,
    "glu": GLUHead,
}


def make(kind: str, width: int, latent: int, **options) -> LatentHead:
    """A head by name or dotted path. Raises ValueError for an unknown kind or option."""
    if kind not in KINDS and not is_dotted_path(kind):
        raise ValueError(
            f"head={kind!r}: known heads are {', '.join(KINDS)}. A head of your own is named by the dotted path of its "
            "class, as my_pkg.heads.MyHead."
        )
    head = KINDS[kind] if kind in KINDS else import_object(kind, "head", LatentHead)
    known = list(inspect.signature(head).parameters)[2:]
    for option in options:
        if option not in known:
            raise ValueError(f"head {kind!r} has no option {option!r}. {did_you_mean(option, known)}")
    return head(width, latent, **options)


__all__ = [
    "AutoregressiveHead",
    "ConstantHead",
    "HeadContext",
    "DiffusionHead",
    "FlowHead",
    "GLUHead",
    "GaussianHead",
    "IdentityHead",
    "LatentHead",
    "LearnedTokensHead",
    "MLPHead",
    "MeanFlowHead",
    "PadHead",
    "WholeSpanHead",
    "make",
]
