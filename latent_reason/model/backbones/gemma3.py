"""Gemma 3 (2503.19786) over the stock transformers class: images attend both ways, most layers use a sliding window."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from transformers.cache_utils import DynamicCache

from ..batch import ImageBatch
from ..tokenization import Layout
from .square import Square


class Gemma3(Square):
    """One extra channel marks an image's tokens, which says which positions attend to each other both ways. The sliding
    window is part of the mask, and the cache keeps all positions."""

    layout = Layout(
        begin="<bos>",
        turn="<start_of_turn>{role}\n",
        end="<end_of_turn>",
        image="<image_soft_token>",
        image_open="\n\n<start_of_image>",
        image_close="<end_of_image>\n\n",
        pad="<pad>",
        roles={"system": "user", "user": "user", "assistant": "model"},
    )
    has_bidirectional_images = True
    extra_width = 1

    @property
    def side(self) -> int:
        return int(self.model.config.mm_tokens_per_image**0.5)

    def encode_pixels(self, images: ImageBatch) -> list[torch.Tensor]:
        return [F.pad(tokens, (0, 1), value=1.0) for tokens in super().encode_pixels(images)]

    def new_cache(self):
        return DynamicCache()

    def text_model_kwargs(self, embeds, extra, mask, positions):
        n, m = embeds.shape[1], mask.shape[-1]
        at = torch.arange(m, device=embeds.device)
        own = at[m - n :, None]  # the place of each new position
        if mask.ndim == 3:  # rows may be at different places: each position sees itself last; padding sees nothing
            last = torch.where(mask, at, -1).amax(-1, keepdim=True)
            own = torch.where(last < 0, own, last)
        distance = own - at  # (n, m), or (B, n, m)
        allowed = mask[:, None] & (distance >= 0) if mask.ndim == 2 else mask
        if extra.shape[-1]:
            is_image = extra[..., 0] > 0
            image = (is_image & ~F.pad(is_image, (1, -1))).cumsum(1) * is_image  # (B, n) number of the image, 0: none
            allowed = allowed | F.pad((image[:, :, None] == image[:, None]) & (image[:, None] > 0), (m - n, 0))
        allowed = allowed | (distance == 0)  # padding attends to itself, or its attention would be undefined
        near = allowed & (distance < self.model.config.text_config.sliding_window)
        return {
            "inputs_embeds": embeds,
            "position_ids": positions[0],
            "attention_mask": {
                "full_attention": self.attention_mask(allowed, embeds.dtype),
                "sliding_attention": self.attention_mask(near, embeds.dtype),
            },
        }
