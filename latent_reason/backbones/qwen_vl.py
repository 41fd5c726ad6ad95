"""Qwen2-VL and Qwen2.5-VL (2409.12191, 2502.13923) over the stock transformers classes."""

from __future__ import annotations

import torch
from PIL import Image as PILImage
from torch import nn
from transformers import AutoModelForImageTextToText, AutoTokenizer
from transformers.cache_utils import DynamicCache
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import get_vision_window_index
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from ..batch import IMAGE, LATENT, MixedBatch, Pictures
from .base import Backbone


class QwenVL(Backbone):
    """M-RoPE positions are always passed: from embeddings alone the stock model silently falls back to 1-D ones."""

    @classmethod
    def from_pretrained(cls, folder: str, *, positions: str = "line", attn: str = "sdpa", dtype=None) -> QwenVL:
        """Raises ValueError where weights are missing or left over."""
        model, info = AutoModelForImageTextToText.from_pretrained(
            folder, attn_implementation=attn, dtype=dtype or "auto", output_loading_info=True, use_safetensors=True)
        if info["missing_keys"] or info["unexpected_keys"]:
            raise ValueError(f"{folder}: {len(info['missing_keys'])} weights missing, "
                             f"{len(info['unexpected_keys'])} left over. Is this the folder of a whole model?")
        return cls(model, AutoTokenizer.from_pretrained(folder), Qwen2VLImageProcessorPil.from_pretrained(folder),
                   positions)

    @property
    def eye(self) -> nn.Module:
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
        h, w = smart_resize(picture.height, picture.width, factor=self.cell,
                            min_pixels=size["shortest_edge"], max_pixels=size["longest_edge"])
        return h // self.cell, w // self.cell

    def merged(self, pictures: Pictures) -> torch.Tensor:
        return pictures.grid[:, 1:] // self.merge

    def see(self, pictures: Pictures) -> list[torch.Tensor]:
        if pictures.tokens is not None:
            return pictures.tokens
        return list(self.model.model.get_image_features(pictures.pixels, pictures.grid).pooler_output)

    def features(self, pictures: Pictures) -> list[torch.Tensor]:
        """Merged neighbourhoods after the connector's norm and before its MLP, row-major again."""
        eye, grid = self.eye, pictures.grid
        hidden = eye(pictures.pixels, grid_thw=grid).last_hidden_state
        window, _ = get_vision_window_index(grid, spatial_merge_size=self.merge, window_size=eye.window_size,
                                            patch_size=eye.patch_size)
        merged = eye.merger.ln_q(hidden).reshape(-1, self.feature_width)[window.argsort()]
        return list(merged.split((grid.prod(-1) // self.merge**2).tolist()))

    def connect(self, features: torch.Tensor) -> torch.Tensor:
        return self.eye.merger.mlp(features.to(self.model.dtype))

    @property
    def feature_width(self) -> int:
        return self.eye.merger.hidden_size

    def place(self, batch: MixedBatch) -> torch.Tensor:
        kind, grids = (batch.kind == IMAGE).int(), []
        runs = [] if batch.images is None else [
            (int(r), i, g) for i, (r, g) in enumerate(zip(batch.image_rows, batch.images.grid, strict=True))]
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
        positions, _ = self.model.model.get_rope_index(batch.ids, mm_token_type_ids=kind, image_grid_thw=grids,
                                                       attention_mask=batch.mask.long())
        return positions

    def _run(self, embeds, mask, positions, **options):
        attn = self.model.config._attn_implementation
        if mask.ndim == 3 and attn != "sdpa":
            raise ValueError(f"attn={attn!r} takes no mask of what each position may see. Use attn: sdpa.")
        mask = mask.long() if mask.ndim == 2 else mask[:, None]
        return self.model.model.language_model(inputs_embeds=embeds, attention_mask=mask, position_ids=positions,
                                               **options)

    def trunk(self, embeds, mask, positions, cache=None) -> torch.Tensor:
        return self._run(embeds, mask, positions, past_key_values=cache, use_cache=cache is not None).last_hidden_state

    def layers(self, embeds, mask, positions) -> torch.Tensor:
        out = self._run(embeds, mask, positions, use_cache=False, output_hidden_states=True)
        return torch.stack(out.hidden_states[1:])

    @torch.no_grad()
    def attentions(self, embeds, mask, positions) -> torch.Tensor:
        usual = self.model.config._attn_implementation
        self.model.set_attn_implementation("eager")  # the others never hold the table
        try:
            out = self._run(embeds, mask, positions, use_cache=False, output_attentions=True)
        finally:
            self.model.set_attn_implementation(usual)
        return torch.stack([a.mean(1) for a in out.attentions])

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        return self.model.lm_head(states)

    def new_cache(self) -> DynamicCache:
        return DynamicCache(config=self.model.config.get_text_config())
