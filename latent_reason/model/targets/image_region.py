"""Targets from a region of an image the model was shown."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image as PILImage

from ...trace import Sketch
from ..batch import Grid, MixedBatch
from .base import pad_spans, pool_tokens
from .vision_tokens import VisionTokens


class ImageRegion(VisionTokens):
    """Tokens of a region of the input image (LVR 2509.24251): the box of the sketch, or the whole image.

    The context already holds what these latents should be, so this target is the redundant control among targets.
    """

    renderable = False

    @staticmethod
    def region(box: Sequence[float], height: int, width: int) -> tuple[int, int, int, int]:
        """Rows and columns (top, bottom, left, right) of the tokens that a box of fractions touches, at least one."""
        x0, y0, x1, y1 = box
        top, left = min(int(y0 * height + 1e-6), height - 1), min(int(x0 * width + 1e-6), width - 1)
        return top, max(math.ceil(y1 * height - 1e-6), top + 1), left, max(math.ceil(x1 * width - 1e-6), left + 1)

    def span_grid(self, sketch: Sketch, image: PILImage.Image | None) -> Grid:
        if image is None:
            raise ValueError("a region needs an image before it, and the prompt has none. Add an image.")
        top, bottom, left, right = self.region(sketch.box or (0, 0, 1, 1), *self.backbone.token_grid(image))
        return self.latent_grid(bottom - top, right - left, sketch.k)

    def statistics_samples(self, batch: MixedBatch) -> list[tuple[torch.Tensor, Grid]]:
        return [(z[: h * w], (h, w)) for z, (h, w) in zip(self(batch), batch.layout.grids, strict=True)]

    @torch.no_grad()
    def forward(self, batch: MixedBatch) -> torch.Tensor:
        assert batch.images is not None  # every span has a region of one
        sizes, tokens, latents = self.token_grids(batch.images), self.backbone.encode_images(batch.images), []
        for (image, *box), grid in zip(batch.boxes, batch.layout.grids, strict=True):
            size = sizes[image]
            top, bottom, left, right = self.region(box, *size)
            cut = tokens[image].float().unflatten(0, size)[top:bottom, left:right]
            latents.append(pool_tokens(cut.flatten(0, 1), (bottom - top, right - left), grid))
        return pad_spans(latents, batch.layout.longest)
