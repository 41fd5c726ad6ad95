"""Latents as actions of reinforcement learning: how a policy samples a latent, and its log-probability.

A policy works in the space of its head (normalized, except for heads in the hidden space). For every latent it keeps a
``record`` (n, J, Z) with everything that a replay needs besides the state. The context holds the latent as it was fed
back.
"""

from .base import WEIGHTINGS, LatentPolicy, Mask, Pathwise, RewardWeighted, sample_head
from .chain import Chain, DdpmSde, FlowSde
from .normal import Gaussian, Normal, Vlpo

__all__ = [
    "WEIGHTINGS",
    "Chain",
    "DdpmSde",
    "FlowSde",
    "Gaussian",
    "LatentPolicy",
    "Mask",
    "Normal",
    "Pathwise",
    "RewardWeighted",
    "Vlpo",
    "sample_head",
]
