"""Targets from a frozen vision encoder outside the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image as PILImage
from torch import nn

from ..backbones.base import Backbone
from ..backbones.encoder_files import Encoder
from ..backbones.encoders import VisionEncoder, load_encoder
from ..batch import Grid, ImageBatch, to_device
from .base import LatentTarget, latent_grid, pad_spans


class ExternalEncoder(LatentTarget):
    """Features of a frozen outside encoder, standardized, pooled and projected into the backbone's space (SkiLa
    2512.16584).

    The projection learns through the inputs only, since the loss takes its output detached. The output has unit rms;
    otherwise the text loss enlarges it and the latent loss follows. ``encoder`` is a name for :func:`load_encoder`;
    the encoder is never trained and stays out of the checkpoint.
    """

    def __init__(self, backbone: Backbone, encoder: Encoder = "tiny", k: int = 27):
        loaded = load_encoder(encoder)
        super().__init__(backbone, loaded.width, k)
        self._encoder = [loaded]  # in a list, so that it is no submodule
        self.project = nn.Linear(loaded.width, backbone.width)

    @property
    def encoder(self) -> VisionEncoder:
        return self._encoder[0]

    def latent_grid(self, height: int, width: int, k: int | None = None) -> Grid:
        return latent_grid(self.encoder.side, self.encoder.side, min(k or self.k, self.k))

    def preprocess_images(self, images: Sequence[PILImage.Image], *, tiled: bool = False) -> ImageBatch:
        return self.encoder.preprocess_images(list(images))

    def encode_images(self, images: ImageBatch) -> list[torch.Tensor]:
        return self.encoder.encode_images(images) if images.features is None else images.features

    def token_grids(self, images: ImageBatch) -> list[Grid]:
        return [(self.encoder.side, self.encoder.side)] * len(images)

    def encode(self, images: ImageBatch, grids: list[Grid] | None = None) -> list[torch.Tensor]:
        grids = grids or [self.latent_grid(0, 0)] * len(images)
        features = pad_spans(self.pooled_features(images, grids), max(h * w for h, w in grids))
        standard = self.standardizer(features, to_device(torch.tensor(grids), features.device))
        projected = self.project(standard.to(self.project.weight.dtype))
        return [F.rms_norm(p[: h * w], p.shape[-1:]) for p, (h, w) in zip(projected, grids, strict=True)]

    def normalize(self, z: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        return z

    @property
    def std(self) -> torch.Tensor:
        return self.project.weight.new_ones(())

    def slot_mean(self, grids: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
        return self.project.weight.new_zeros(*slot.shape, self.backbone.width)

    def denormalize(self, z: torch.Tensor, grids: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
        return z
