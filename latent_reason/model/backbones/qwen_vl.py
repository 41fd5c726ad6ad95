"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL (2409.12191, 2502.13923, 2511.21631) with the stock transformers classes."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image as PILImage
from torch import nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import get_vision_window_index
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from ...images import to_rgb
from ..batch import IMAGE, LATENT, PAD, Grid, ImageBatch, MixedBatch, to_device
from .base import Backbone


class QwenVL(Backbone):
    """M-RoPE positions are always passed, because the stock model silently uses 1-D positions for embedding input."""

    has_2d_positions = True

    @staticmethod
    def load_image_processor(folder: str, config) -> Qwen2VLImageProcessorPil:
        return Qwen2VLImageProcessorPil.from_pretrained(folder)

    @property
    def visual(self) -> nn.Module:
        return self.model.model.visual

    @property
    def merge(self) -> int:
        return self.image_processor.merge_size

    @property
    def pixels_per_token(self) -> int:
        return self.image_processor.patch_size * self.merge

    def preprocess_images(self, images: list[PILImage.Image], *, tiled: bool = True) -> ImageBatch:
        inputs = self.image_processor(images=[to_rgb(image) for image in images], return_tensors="pt")
        return ImageBatch(grid=inputs["image_grid_thw"], pixels=inputs["pixel_values"])

    def set_pixel_limits(self, min_pixels: int | None = None, max_pixels: int | None = None) -> None:
        size = dict(self.image_processor.size)
        shortest, longest = min_pixels or size["shortest_edge"], max_pixels or size["longest_edge"]
        if not 0 < shortest <= longest or longest < self.pixels_per_token**2:
            raise ValueError(
                f"min_pixels={shortest}, max_pixels={longest}: the first must not be more than the second, and the second "
                f"at least {self.pixels_per_token**2}, the pixels of one token."
            )
        self.image_processor.size = {"shortest_edge": shortest, "longest_edge": longest}

    @property
    def pixel_limits(self) -> tuple[int, int]:
        return self.image_processor.size["shortest_edge"], self.image_processor.size["longest_edge"]

    def token_grid(self, image: PILImage.Image) -> tuple[int, int]:
        size = self.image_processor.size
        h, w = smart_resize(
            image.height,
            image.width,
            factor=self.pixels_per_token,
            min_pixels=size["shortest_edge"],
            max_pixels=size["longest_edge"],
        )
        return h // self.pixels_per_token, w // self.pixels_per_token

    def token_grids(self, images: ImageBatch) -> list[Grid]:
        return [(h // self.merge, w // self.merge) for _, h, w in images.sizes]

    def encode_pixels(self, images: ImageBatch) -> list[torch.Tensor]:
        grid = to_device(images.grid, images.pixels.device)
        return list(self.model.model.get_image_features(images.pixels, grid).pooler_output)

    def vision_features(self, images: ImageBatch) -> list[torch.Tensor]:
        """Merged neighborhoods after the connector's norm and before its MLP, in row-major order."""
        encoder, grid = self.visual, to_device(images.grid, images.pixels.device)
        hidden = encoder(images.pixels, grid_thw=grid).last_hidden_state
        window, _ = get_vision_window_index(
            grid, spatial_merge_size=self.merge, window_size=encoder.window_size, patch_size=encoder.patch_size
        )
        merged = encoder.merger.ln_q(hidden).reshape(-1, self.feature_width)[window.argsort()]
        return list(merged.split([h * w for h, w in self.token_grids(images)]))

    def apply_connector(self, features: torch.Tensor) -> torch.Tensor:
        return self.visual.merger.mlp(features.to(self.model.dtype))

    @property
    def feature_width(self) -> int:
        return self.visual.merger.hidden_size

    def position_ids(self, batch: MixedBatch) -> torch.Tensor:
        token_type = torch.tensor(batch.layout.token_type)  # on the host, because the stock rule reads it
        grids = None if batch.images is None else batch.images.grid
        is_image = token_type == IMAGE
        if self.latent_positions == "2d" and len(batch.spans):
            is_image, grids = is_image | (token_type == LATENT), self._image_and_span_grids(batch)
        positions, _ = self.model.model.get_rope_index(
            token_type, is_image.int(), image_grid_thw=grids, attention_mask=(token_type != PAD).long()
        )
        return to_device(positions, batch.ids.device)

    def _image_and_span_grids(self, batch: MixedBatch) -> torch.Tensor:
        """Patch grids of images and spans in order of appearance. A span has the positions of an image of its grid."""
        is_image, spans = batch.layout.token_type == IMAGE, batch.layout.spans
        is_first = is_image & ~np.pad(is_image, ((0, 0), (1, 0)))[:, :-1]
        grids = torch.tensor([[1, h * self.merge, w * self.merge] for h, w in spans[:, 2:]])
        if batch.images is not None:
            grids = torch.cat([batch.images.grid, grids])
        first = [*np.argwhere(is_first).tolist(), *spans[:, :2].tolist()]
        return grids[sorted(range(len(first)), key=first.__getitem__)]


class Qwen3VL(QwenVL):
    """Qwen3-VL. The text model adds features of intermediate vision layers to the hidden states of its first layers
    (DeepStack 2406.04334). Only image tokens have these features; latents and text have none."""

    @property
    def extra_width(self) -> int:  # type: ignore[override]  # nothing sets it
        return self.width * len(self.visual.deepstack_visual_indexes)

    def encode_pixels(self, images: ImageBatch) -> list[torch.Tensor]:
        output = self.model.model.get_image_features(images.pixels, to_device(images.grid, images.pixels.device))
        # a list of (all tokens, D) in transformers 5.17, of one (T, D) an image in 5.23
        deep = [
            layer if isinstance(layer, torch.Tensor) else torch.cat(list(layer)) for layer in output.deepstack_features
        ]
        tokens = list(output.pooler_output)
        return list(torch.cat([torch.cat(tokens), *deep], -1).split([len(t) for t in tokens]))

    def text_model_kwargs(self, embeds, extra, mask, positions):
        kwargs = super().text_model_kwargs(embeds, extra, mask, positions)
        if extra.shape[-1]:  # added everywhere: they are zero but at images, and to choose these would read the device
            deep = extra.flatten(0, 1).split(self.width, -1)
            everywhere = torch.ones(extra.shape[:2], dtype=torch.bool, device=extra.device)
            kwargs |= {"visual_pos_masks": everywhere, "deepstack_visual_embeds": list(deep)}
        return kwargs

    def vision_features(self, images: ImageBatch) -> list[torch.Tensor]:
        raise ValueError(
            "Qwen3-VL has several connectors, so it has no features before the connector. Use a method with another "
            "target."
        )

    @property
    def feature_width(self) -> int:
        raise ValueError(
            "Qwen3-VL has several connectors, so it has no features before the connector. Use a method with another "
            "target."
        )
