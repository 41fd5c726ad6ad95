"""Targets from the model's own frozen vision encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from PIL import Image as PILImage

from ..batch import Grid, ImageBatch
from .base import LatentTarget

if TYPE_CHECKING:
    from ..backbones.base import Backbone


class VisionTokens(LatentTarget):
    """Tokens of the sketch from the model's own vision encoder and connector, pooled to at most ``k`` latents.

    Modal-Mixed CoT (2602.00574) pools 256 tokens to 32; here small images keep one latent a token. ``resize_input``
    resizes the image before it is encoded instead of pooling its tokens (SwimBird 2602.06040). Without ``standardize``,
    states and tokens are compared as they are (Mirage 2506.17218, LVR 2509.24251, ILVR 2512.05665).
    """

    def __init__(self, backbone: Backbone, k: int = 32, resize_input: bool = False, *, standardize: bool = True):
        super().__init__(backbone, self.latent_width(backbone), k, standardize=standardize)
        self.resize_input = resize_input

    @staticmethod
    def latent_width(backbone: Backbone) -> int:
        """Z: channels of one latent."""
        return backbone.width

    def preprocess_images(self, images: Sequence[PILImage.Image], *, tiled: bool = False) -> ImageBatch:
        if self.resize_input:
            pixels = self.backbone.pixels_per_token
            grids = [self.latent_grid(*self.backbone.token_grid(image)) for image in images]
            images = [image.resize((w * pixels, h * pixels)) for image, (h, w) in zip(images, grids, strict=True)]
        return self.backbone.preprocess_images(list(images), tiled=False)

    def encode_images(self, images: ImageBatch) -> list[torch.Tensor]:
        return self.backbone.encode_images(images)

    def token_grids(self, images: ImageBatch) -> list[Grid]:
        return self.backbone.token_grids(images)


class PreConnectorFeatures(VisionTokens):
    """Features before the connector (Latent Sketchpad 2510.24514). A head produces their C = Z channels; the frozen
    connector maps them into the backbone's space."""

    @staticmethod
    def latent_width(backbone: Backbone) -> int:
        return backbone.feature_width

    def encode_images(self, images: ImageBatch) -> list[torch.Tensor]:
        return self.backbone.vision_features(images) if images.features is None else images.features

    def to_embeddings(self, z: torch.Tensor) -> torch.Tensor:
        return self.backbone.apply_connector(z)
