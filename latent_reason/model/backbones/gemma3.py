"""Gemma 3 (2503.19786) over the stock transformers class: pictures attend both ways, most layers look back a window."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..tokenization import Layout
from .square import Square


class Gemma3(Square):
    """One more channel marks a picture's tokens, so that the trunk knows which positions see each other both ways; the
    window is part of the mask, and the cache keeps all."""

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
    masks = True
    more = 1

    @property
    def side(self) -> int:
        return int(self.model.config.mm_tokens_per_image**0.5)

    def encode(self, pictures):
        return [F.pad(tokens, (0, 1), value=1.0) for tokens in super().encode(pictures)]

    def new_cache(self):
        from transformers.cache_utils import DynamicCache

        return DynamicCache()

    def given(self, embeds, more, mask, positions) -> dict:
        n, m = embeds.shape[1], mask.shape[-1]
        at = torch.arange(m, device=embeds.device)
        before, back = at[None] <= at[m - n :, None], at[m - n :, None] - at[None]  # (n, m)
        sees = mask[:, None] & before if mask.ndim == 2 else mask
        if more.shape[-1] and more.any():
            picture = more[..., 0] > 0
            number = (picture & ~F.pad(picture, (1, -1))).cumsum(1) * picture  # (B, n) which picture, 0: none
            sees = sees.clone()
            sees[:, :, m - n :] |= (number[:, :, None] == number[:, None]) & (number[:, None] > 0)
        sees = sees | (back == 0)  # padding sees itself, or its attention would be undefined
        near = sees & (back < self.model.config.text_config.sliding_window)
        return {
            "inputs_embeds": embeds,
            "position_ids": positions[0],
            "attention_mask": {
                "full_attention": self.mask_of(sees, embeds.dtype),
                "sliding_attention": self.mask_of(near, embeds.dtype),
            },
        }
