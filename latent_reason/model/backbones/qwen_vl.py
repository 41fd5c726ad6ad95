"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL (2409.12191, 2502.13923, 2511.21631) with the stock transformers classes."""

from __future__ import annotations

import torch
from PIL import Image as PILImage
from torch import nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import get_vision_window_index
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from ...images import to_rgb
from ..batch import IMAGE, LATENT, ImageBatch, MixedBatch
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

    def token_grids(self, images: ImageBatch) -> torch.Tensor:
        return images.grid[:, 1:] // self.merge

    def encode_pixels(self, images: ImageBatch) -> list[torch.Tensor]:
        return list(self.model.model.get_image_features(images.pixels, images.grid).pooler_output)

    def vision_features(self, images: ImageBatch) -> list[torch.Tensor]:
        """Merged neighborhoods after the connector's norm and before its MLP, in row-major order."""
        encoder, grid = self.visual, images.grid
        hidden = encoder(images.pixels, grid_thw=grid).last_hidden_state
        window, _ = get_vision_window_index(
            grid, spatial_merge_size=self.merge, window_size=encoder.window_size, patch_size=encoder.patch_size
        )
        merged = encoder.merger.ln_q(hidden).reshape(-1, self.feature_width)[window.argsort()]
        return list(merged.split((grid.prod(-1) // self.merge**2).tolist()))

    def apply_connector(self, features: torch.Tensor) -> torch.Tensor:
        return self.visual.merger.mlp(features.to(self.model.dtype))

    @property
    def feature_width(self) -> int:
        return self.visual.merger.hidden_size

    def position_ids(self, batch: MixedBatch) -> torch.Tensor:
        grids = None if batch.images is None else batch.images.grid
        is_image = batch.token_type == IMAGE
        if self.latent_positions == "2d" and len(batch.spans):
            is_image, grids = is_image | (batch.token_type == LATENT), self._image_and_span_grids(batch)
        return self._rope(batch, is_image.int(), grids)

    def _image_and_span_grids(self, batch: MixedBatch) -> torch.Tensor:
        """Patch grids of images and spans in order of appearance. A span has the positions of an image of its grid."""
        images = batch.images.grid if batch.images is not None else batch.spans.new_zeros(0, 3)
        rows = [] if batch.image_rows is None else batch.image_rows.tolist()
        order = [
            (row, self._first_position(batch, i), grid) for i, (row, grid) in enumerate(zip(rows, images, strict=True))
        ]
        for row, start, h, w in batch.spans.tolist():
            order.append((row, start, images.new_tensor([1, h * self.merge, w * self.merge])))
        return torch.stack([grid for *_, grid in sorted(order, key=lambda entry: entry[:2])])

    def _first_position(self, batch: MixedBatch, i: int) -> int:
        """Position of the first token of image ``i`` of the batch."""
        row = int(batch.image_rows[i])
        earlier = int((batch.image_rows[:i] == row).sum())
        is_image = batch.token_type[row] == IMAGE
        starts = torch.nonzero(is_image & ~torch.cat([is_image.new_zeros(1), is_image[:-1]]))
        return int(starts[earlier])

    def _rope(self, batch: MixedBatch, kind: torch.Tensor, grids: torch.Tensor | None) -> torch.Tensor:
        positions, _ = self.model.model.get_rope_index(
            batch.ids, mm_token_type_ids=kind, image_grid_thw=grids, attention_mask=batch.mask.long()
        )
        return positions


class Qwen3VL(QwenVL):
    """Qwen3-VL. The text model adds features of intermediate vision layers to the hidden states of its first layers
    (DeepStack 2406.04334). Only image tokens have these features; latents and text have none."""

    @property
    def extra_width(self) -> int:  # type: ignore[override]  # nothing sets it
        return self.width * len(self.visual.deepstack_visual_indexes)

    def encode_pixels(self, images: ImageBatch) -> list[torch.Tensor]:
        output = self.model.model.get_image_features(images.pixels, images.grid)
        # a list of (all tokens, D) in transformers 5.17, of one (T, D) an image in 5.23
        deep = [
            layer if isinstance(layer, torch.Tensor) else torch.cat(list(layer)) for layer in output.deepstack_features
        ]
        tokens = list(output.pooler_output)
        return list(torch.cat([torch.cat(tokens), *deep], -1).split([len(t) for t in tokens]))

    def text_model_kwargs(self, embeds, extra, mask, positions):
        kwargs = super().text_model_kwargs(embeds, extra, mask, positions)
        if extra.shape[-1] and (is_image := extra.any(-1)).any():
            deep = extra[is_image].split(self.width, -1)
            kwargs |= {"visual_pos_masks": is_image, "deepstack_visual_embeds": list(deep)}
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
