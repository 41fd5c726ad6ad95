"""The sketch decoder: latents to pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from einops import rearrange
from PIL import Image as PILImage
from torch import nn

if TYPE_CHECKING:
    from ..model.batch import ImageBatch, MixedBatch
    from ..model.reasoner import LatentReasoner


def encode_grid_positions(height: int, width: int, device=None) -> torch.Tensor:
    """(height * width, 34) Fourier features of the cell centers of a grid, and the inverse of its height and width."""
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    centers = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2)
    angles = centers[:, :, None] * math.pi * 2.0 ** torch.arange(-1, 7, device=device)
    size = centers.new_tensor([1 / height, 1 / width]).expand(len(centers), -1)
    return torch.cat([angles.sin().flatten(1), angles.cos().flatten(1), size], -1)


class DecoderBlock(nn.Module):
    """Self-attention over the tokens of a picture, then an MLP, both with pre-normalization."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(S, h*w, width) -> the same shape."""
        normed = self.norm(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class SketchDecoder(ModelMixin, ConfigMixin):
    """Decodes K latents on an (h', w') grid to a picture of (h, w) tokens, ``patch`` x ``patch`` pixels for each token.

    Example:
        >>> reasoner, decoder = load("checkpoints/frozenlake-tiny")

    The latents are interpolated to the token grid of the picture. Position features are added, a few attention blocks
    mix the tokens, and a linear layer maps each token to its pixels.

    Args:
        latent: width Z of a latent.
        width: width of the decoder.
        depth: number of attention blocks.
        heads: attention heads of a block.
        patch: side of the square of pixels that one token covers.
    """

    # Saved decoders name their weights by the attributes enter, where, blocks and leave.

    @register_to_config
    def __init__(self, latent: int = 128, width: int = 128, depth: int = 1, heads: int = 4, patch: int = 32):
        super().__init__()
        self.enter = nn.Sequential(nn.LayerNorm(latent), nn.Linear(latent, width))
        self.where = nn.Linear(34, width)
        self.blocks = nn.ModuleList(DecoderBlock(width, heads) for _ in range(depth))
        self.leave = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, 3 * patch * patch)
        )

    def forward(self, latents: torch.Tensor, grid: tuple[int, int], size: tuple[int, int]) -> torch.Tensor:
        """Decode S sketches of one grid.

        Args:
            latents: (S, h'*w', Z).
            grid: (h', w') of the latents.
            size: (h, w) tokens of the pictures.

        Returns:
            (S, 3, h*patch, w*patch) pixels, 0 black to 1 white, not clamped.
        """
        x = self.enter(latents)
        if grid != size:
            x = rearrange(x, "s (h w) d -> s d h w", h=grid[0])
            x = rearrange(F.interpolate(x, size=size, mode="bilinear", align_corners=False), "s d h w -> s (h w) d")
        x = x + self.where(encode_grid_positions(*size, x.device).to(x.dtype))
        for block in self.blocks:
            x = block(x)
        p = self.config.patch
        return rearrange(self.leave(x), "s (h w) (c p q) -> s c (h p) (w q)", h=size[0], p=p, q=p)

    @torch.no_grad()
    def draw(self, latents: torch.Tensor, grid: tuple[int, int], size: tuple[int, int]) -> PILImage.Image:
        """Decode one sketch (K, Z) to a picture of h*patch x w*patch pixels. A span with fewer than h'*w' latents is
        padded with zeros; latents beyond that number are left out."""
        latents = fill_grid(latents.float(), grid)
        return to_pil(self(latents[None].to(self.device), grid, size)[0])


def fill_grid(latents: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """(h'*w', Z) from latents (K, Z) of a span of ``grid``: zeros for those that are missing, and none beyond it."""
    return F.pad(latents, (0, 0, 0, grid[0] * grid[1] - len(latents)))


def to_pil(pixels: torch.Tensor) -> PILImage.Image:
    """Pixels (3, H, W) from 0 to 1, clamped, as an RGB picture."""
    return PILImage.fromarray((pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def to_pixels(picture: PILImage.Image, size: tuple[int, int], patch: int) -> torch.Tensor:
    """An RGB picture as pixels (3, h*patch, w*patch) from 0 to 1, scaled to ``size`` (h, w) tokens."""
    small = picture.resize((size[1] * patch, size[0] * patch), PILImage.Resampling.BOX)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255


def preprocess_renderings(
    reasoner: LatentReasoner, pictures: Sequence[PILImage.Image], sizes: Sequence[tuple[int, int]]
) -> ImageBatch:
    """Rendered pictures of ``sizes`` (h, w) tokens as the target's encoder takes them, on the reasoner's device. Each is
    scaled to the pixels of so many tokens of the backbone; as it is rendered, the encoder could see fewer tokens in it."""
    side = reasoner.backbone.pixels_per_token
    scaled = [picture.resize((w * side, h * side)) for picture, (h, w) in zip(pictures, sizes, strict=True)]
    return reasoner.processor.preprocess_sketches(scaled).to(reasoner.device)


@torch.no_grad()
def reencode_sketches(
    reasoner: LatentReasoner,
    batch: MixedBatch,
    latents: torch.Tensor,
    is_chosen: torch.Tensor,
    *,
    decoder: SketchDecoder,
) -> torch.Tensor:
    """Decode the chosen sketches to pictures and encode the pictures again, as if the model received its own sketches
    as images. Latent Sketchpad (arXiv 2510.24514) trains on up to two such rounds.

    Args:
        latents: (S, K, D) latents of the spans of ``batch``, as the backbone takes them.
        is_chosen: (S,) the spans to re-encode; the others keep their latents.

    Returns:
        (S, K, D), a new tensor.
    """
    assert batch.sketches is not None  # the sizes of the pictures are theirs
    latents, sizes = latents.clone(), reasoner.target.token_grids(batch.sketches)
    for span in is_chosen.nonzero()[:, 0].tolist():
        h, w = grid = tuple(batch.spans[span, 2:].tolist())
        drawn = decoder.draw(reasoner.unscale_latents(latents[span, : h * w]), grid, sizes[span])
        images = preprocess_renderings(reasoner, [drawn], [sizes[span]])
        encoded = reasoner.target.encode_embeddings(images, [grid])[0]
        latents[span, : h * w] = reasoner.scale_latents(encoded).to(latents)
    return latents
