"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL (2409.12191, 2502.13923, 2511.21631) over the stock transformers classes."""

from __future__ import annotations

import torch
from PIL import Image as PILImage
from torch import nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import get_vision_window_index
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from ..batch import IMAGE, LATENT, MixedBatch, Pictures
from .base import Backbone


class QwenVL(Backbone):
    """M-RoPE positions are always passed: from embeddings alone the stock model silently falls back to 1-D ones."""

    grids = True

    @staticmethod
    def processor(folder: str, config) -> Qwen2VLImageProcessorPil:
        return Qwen2VLImageProcessorPil.from_pretrained(folder)

    @property
    def visual(self) -> nn.Module:
        return self.model.model.visual

    @property
    def merge(self) -> int:
        return self.image_processor.merge_size

    @property
    def cell(self) -> int:
        return self.image_processor.patch_size * self.merge

    def look(self, pictures: list[PILImage.Image]) -> Pictures:
        seen = self.image_processor(images=pictures, return_tensors="pt")
        return Pictures(grid=seen["image_grid_thw"], pixels=seen["pixel_values"])

    def token_grid(self, picture: PILImage.Image) -> tuple[int, int]:
        size = self.image_processor.size
        h, w = smart_resize(
            picture.height,
            picture.width,
            factor=self.cell,
            min_pixels=size["shortest_edge"],
            max_pixels=size["longest_edge"],
        )
        return h // self.cell, w // self.cell

    def merged(self, pictures: Pictures) -> torch.Tensor:
        return pictures.grid[:, 1:] // self.merge

    def encode(self, pictures: Pictures) -> list[torch.Tensor]:
        return list(self.model.model.get_image_features(pictures.pixels, pictures.grid).pooler_output)

    def features(self, pictures: Pictures) -> list[torch.Tensor]:
        """Merged neighbourhoods after the connector's norm and before its MLP, row-major again."""
        eye, grid = self.visual, pictures.grid
        hidden = eye(pictures.pixels, grid_thw=grid).last_hidden_state
        window, _ = get_vision_window_index(
            grid, spatial_merge_size=self.merge, window_size=eye.window_size, patch_size=eye.patch_size
        )
        merged = eye.merger.ln_q(hidden).reshape(-1, self.feature_width)[window.argsort()]
        return list(merged.split((grid.prod(-1) // self.merge**2).tolist()))

    def connect(self, features: torch.Tensor) -> torch.Tensor:
        return self.visual.merger.mlp(features.to(self.model.dtype))

    @property
    def feature_width(self) -> int:
        return self.visual.merger.hidden_size

    def placed(self, batch: MixedBatch) -> torch.Tensor:
        kind, grids = (batch.kind == IMAGE).int(), []
        runs = (
            []
            if batch.images is None
            else [(int(r), i, g) for i, (r, g) in enumerate(zip(batch.image_rows, batch.images.grid, strict=True))]
        )
        if self.positions == "grid" and len(batch.spans):
            kind = kind | (batch.kind == LATENT).int()
            return self._place_grid(batch, kind)
        grids = torch.stack([g for _, _, g in runs]) if runs else None
        return self._rope(batch, kind, grids)

    def _place_grid(self, batch: MixedBatch, kind: torch.Tensor) -> torch.Tensor:
        """Latents stand like a picture of their own grid: hand their grids over in order of appearance."""
        images = batch.images.grid if batch.images is not None else batch.spans.new_zeros(0, 3)
        rows = batch.image_rows
        order = [(int(r), self._first(batch, i), g) for i, (r, g) in enumerate(zip(rows, images, strict=True))]
        for row, start, h, w in batch.spans.tolist():
            order.append((row, start, images.new_tensor([1, h * self.merge, w * self.merge])))
        return self._rope(batch, kind, torch.stack([g for *_, g in sorted(order, key=lambda o: o[:2])]))

    def _first(self, batch: MixedBatch, i: int) -> int:
        """Position of the first token of picture i of the batch."""
        row = int(batch.image_rows[i])
        earlier = int((batch.image_rows[:i] == row).sum())
        is_image = batch.kind[row] == IMAGE
        starts = torch.nonzero(is_image & ~torch.cat([is_image.new_zeros(1), is_image[:-1]]))
        return int(starts[earlier])

    def _rope(self, batch: MixedBatch, kind: torch.Tensor, grids: torch.Tensor | None) -> torch.Tensor:
        positions, _ = self.model.model.get_rope_index(
            batch.ids, mm_token_type_ids=kind, image_grid_thw=grids, attention_mask=batch.mask.long()
        )
        return positions


class Qwen3VL(QwenVL):
    """Its trunk adds what the eye's middle layers saw of a picture to the states of its own first layers (DeepStack
    2406.04334). These features stand beside the picture's tokens; latents, like words, have none."""

    @property
    def more(self) -> int:
        return self.width * len(self.visual.deepstack_visual_indexes)

    def encode(self, pictures: Pictures) -> list[torch.Tensor]:
        seen = self.model.model.get_image_features(pictures.pixels, pictures.grid)
        # a list of (all tokens, D) in transformers 5.17, of one (T, D) a picture in 5.23
        deep = [
            layer if isinstance(layer, torch.Tensor) else torch.cat(list(layer)) for layer in seen.deepstack_features
        ]
        tokens = list(seen.pooler_output)
        return list(torch.cat([torch.cat(tokens), *deep], -1).split([len(t) for t in tokens]))

    def given(self, embeds, more, mask, positions) -> dict:
        given = super().given(embeds, more, mask, positions)
        if more.shape[-1] and (pictures := more.any(-1)).any():
            deep = more[pictures].split(self.width, -1)
            given |= {"visual_pos_masks": pictures, "deepstack_visual_embeds": list(deep)}
        return given

    def features(self, pictures: Pictures) -> list[torch.Tensor]:
        raise ValueError(
            "Qwen3-VL's eye has several connectors, so there is no place before the connector. Use a "
            "method with another target."
        )

    @property
    def feature_width(self) -> int:
        return self.features(None)
