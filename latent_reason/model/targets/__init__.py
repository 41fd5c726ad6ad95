"""Latent targets: what the latents of a sketch should be. One file a kind; see :class:`LatentTarget`."""

from .base import LatentTarget, Standardizer, latent_grid, pool_tokens
from .external_encoder import ExternalEncoder
from .image_region import ImageRegion
from .vision_tokens import PreConnectorFeatures, VisionTokens

__all__ = [
    "ExternalEncoder",
    "ImageRegion",
    "LatentTarget",
    "PreConnectorFeatures",
    "Standardizer",
    "VisionTokens",
    "latent_grid",
    "pool_tokens",
]
