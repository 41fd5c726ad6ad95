"""Latents back to pictures, and the sheet that shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont
from torch import nn


def place_features(height: int, width: int, device=None) -> torch.Tensor:
    """(height * width, 34) Fourier features of the centres of a grid's cells, and its size."""
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    at = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2)
    angles = at[:, :, None] * math.pi * 2.0 ** torch.arange(-1, 7, device=device)
    size = at.new_tensor([1 / height, 1 / width]).expand(len(at), -1)
    return torch.cat([angles.sin().flatten(1), angles.cos().flatten(1), size], -1)


class Block(nn.Module):
    """Self-attention over the tokens of the picture, then an MLP."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        n = self.norm(x)
        x = x + self.attention(n, n, n, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class SketchDecoder(ModelMixin, ConfigMixin):
    """A small decoder from the latents of a sketch to a picture.

        reasoner, decoder = load("checkpoints/frozenlake-tiny")

    K latents on an (h', w') grid become a picture of (h, w) tokens, ``patch`` pixels a token: latents are spread over
    the picture's token grid, get features of their position, pass a few attention blocks and are read out as one
    square of pixels a token.
    """

    @register_to_config
    def __init__(self, latent: int = 128, width: int = 128, depth: int = 1, heads: int = 4, patch: int = 32):
        super().__init__()
        self.enter = nn.Sequential(nn.LayerNorm(latent), nn.Linear(latent, width))
        self.where = nn.Linear(34, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.leave = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, 3 * patch * patch)
        )

    def forward(self, latents: torch.Tensor, grid: tuple[int, int], size: tuple[int, int]) -> torch.Tensor:
        """(S, h'*w', Z) latents of one grid -> (S, 3, h*patch, w*patch) pixels, 0 black to 1 white."""
        x = self.enter(latents)
        if grid != size:
            x = rearrange(x, "s (h w) d -> s d h w", h=grid[0])
            x = rearrange(F.interpolate(x, size=size, mode="bilinear", align_corners=False), "s d h w -> s (h w) d")
        x = x + self.where(place_features(*size, x.device).to(x.dtype))
        for block in self.blocks:
            x = block(x)
        p = self.config.patch
        return rearrange(self.leave(x), "s (h w) (c p q) -> s c (h p) (w q)", h=size[0], p=p, q=p)

    @torch.no_grad()
    def draw(self, latents: torch.Tensor, grid: tuple[int, int], size: tuple[int, int]) -> PILImage.Image:
        """One sketch (K, Z) as a picture. Spans cut short are filled up with zeros."""
        missing = grid[0] * grid[1] - len(latents)
        latents = F.pad(latents.float(), (0, 0, 0, missing)) if missing > 0 else latents[: grid[0] * grid[1]].float()
        return to_pil(self(latents[None].to(self.device), grid, size)[0])


def to_pil(pixels: torch.Tensor) -> PILImage.Image:
    """(3, H, W) in 0..1 -> picture."""
    return PILImage.fromarray((pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def to_pixels(picture: PILImage.Image, size: tuple[int, int], patch: int) -> torch.Tensor:
    """Picture -> (3, h*patch, w*patch) in 0..1."""
    small = picture.resize((size[1] * patch, size[0] * patch), PILImage.Resampling.BOX)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255


def sheet(
    rows: Sequence[Sequence[tuple[str, PILImage.Image | str]]], tile: int = 128, gap: int = 8, text_width: int = 200
) -> PILImage.Image:
    """A contact sheet: each row is a list of (caption, picture or words)."""
    font, line = ImageFont.load_default(12), 15

    def wide(cell):
        return text_width if isinstance(cell[1], str) else tile

    widths = [max(wide(r[i]) for r in rows if i < len(r)) for i in range(max(map(len, rows)))]
    # a line without pictures is only as high as its words
    heights = [gap + line + (tile if any(isinstance(c, PILImage.Image) for _, c in row) else 2 * line) for row in rows]
    canvas = PILImage.new("RGB", (sum(widths) + gap * (len(widths) + 1), gap + sum(heights)), "white")
    pen, y = ImageDraw.Draw(canvas), gap
    for row, height in zip(rows, heights, strict=True):
        x = gap
        for (caption, content), width in zip(row, widths, strict=False):
            pen.text((x, y), caption, fill=(90, 90, 90), font=font)
            if isinstance(content, str):
                for i, words in enumerate(wrapped(content, pen, font, text_width)[: height // line - 1]):
                    pen.text((x, y + line * (i + 1)), words, fill="black", font=font)
            elif content is not None:
                size = [max(1, round(side * tile / max(content.size))) for side in content.size]
                canvas.paste(content.convert("RGB").resize(size, PILImage.Resampling.BILINEAR), (x, y + line))
            x += width + gap
        y += height
    return canvas


@torch.no_grad()
def seen_again(reasoner, decoder: SketchDecoder, batch, fed: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Given latents (S, K, D) with those of the ``chosen`` spans (S,) as the eye sees their rendering: what a model
    would get if it looked at its sketch (Latent Sketchpad 2510.24514 trains on up to two such rounds)."""
    fed, sizes = fed.clone(), reasoner.target.sizes(reasoner.backbone, batch.sketches)
    for i in chosen.nonzero()[:, 0].tolist():
        h, w = grid = tuple(batch.spans[i, 2:].tolist())
        picture = decoder.draw(fed[i, : h * w], grid, sizes[i])
        looked = reasoner.look([picture]).to(fed.device)
        fed[i, : h * w] = reasoner.target.tokens(reasoner.backbone, looked, [grid])[0].to(fed.dtype)
    return fed


def wrapped(text: str, pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The words in lines of at most ``width`` pixels; a word longer than that has a line of its own."""
    lines, now = [], ""
    for word in text.split():
        longer = f"{now} {word}".strip()
        if pen.textlength(longer, font=font) > width and now:
            lines.append(now)
            longer = word
        now = longer
    return [*lines, now]
