"""What a sketch's latents should be, and the space in which they are learnt.

A target never moves while a head trains: it is computed without gradient (S1 of the method rules: in a released code
the loss also pulled the target toward the prediction).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from .batch import MixedBatch, Pictures


def latent_grid(height: int, width: int, k: int) -> tuple[int, int]:
    """The grid of at most k latents that a picture of height x width tokens becomes.

    A picture with at most k tokens keeps its own grid: pooling never invents tokens. Otherwise h' * w' = k with the
    nearest aspect ratio and h' <= height, w' <= width; where k has no such factors, the largest smaller count that has.
    """
    if height * width <= k:
        return height, width
    for count in range(k, 0, -1):
        fits = [(h, count // h) for h in range(1, count + 1)
                if count % h == 0 and h <= height and count // h <= width]
        if fits:
            return min(fits, key=lambda g: abs(math.log(g[0] * width / (g[1] * height))))
    raise ValueError(f"k={k}: a sketch needs at least one latent.")


def pool(tokens: torch.Tensor, grid: tuple[int, int], to: tuple[int, int]) -> torch.Tensor:
    """(h*w, D) -> (h'*w', D): 2-D average pooling on the token grid, row-major. Never cuts the flat sequence."""
    if grid == to:
        return tokens
    plane = rearrange(tokens, "(h w) d -> 1 d h w", h=grid[0])
    return rearrange(F.adaptive_avg_pool2d(plane, to), "1 d h w -> (h w) d")


class Standardizer(nn.Module):
    """z -> (z - mean of its slot) / std of its channel, with stored statistics.

    Most of a pooled vision token is the constant of its place, so a raw regression loss is nearly satisfied by that
    constant. Means are kept on a ``side`` x ``side`` grid and interpolated for spans of another grid; stds are per
    channel over centred values, floor 1e-3.
    """

    def __init__(self, width: int, side: int = 6):
        super().__init__()
        self.side, self._kept, self._kept_for = side, {}, (None, 0)
        self.register_buffer("mean", torch.zeros(side, side, width))
        self.register_buffer("std", torch.ones(width))
        self.register_buffer("fitted", torch.tensor(False))

    def slot_mean(self, grids: torch.Tensor, k: int) -> torch.Tensor:
        """(S, 2) grids -> (S, k, D) means of the slots, row-major, zero beyond a span's length."""
        return torch.stack([self._means(h, w, k) for h, w in grids.tolist()])

    def _means(self, h: int, w: int, k: int) -> torch.Tensor:
        """(k, D) means of one grid, kept until the statistics change: decoding asks for them at every latent."""
        known, version = self._kept_for
        if known is not self.mean or version != self.mean._version:
            self._kept, self._kept_for = {}, (self.mean, self.mean._version)
        key = (h, w, k)
        if key not in self._kept:
            plane = rearrange(self.mean, "h w d -> 1 d h w")
            for axis in (a for a, size in ((2, h), (3, w)) if size == 1):  # corners of one row: it would be the first
                plane = plane.mean(axis, keepdim=True)
            if (h, w) != (self.side, self.side):
                plane = F.interpolate(plane, size=(h, w), mode="bilinear", align_corners=True)
            self._kept[key] = F.pad(rearrange(plane, "1 d h w -> (h w) d"), (0, 0, 0, k - h * w))
        return self._kept[key]

    def forward(self, z: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        """(S, K, D) raw -> standardised."""
        return (z - self.slot_mean(grids, z.shape[1])) / self.std

    def inverse(self, z: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        return z * self.std + self.slot_mean(grids, z.shape[1])

    @torch.no_grad()
    def fit(self, samples: list[tuple[torch.Tensor, tuple[int, int]]]) -> None:
        """Statistics of training targets: pairs of (h*w, D) tokens and their grid.

        Raises:
            ValueError: fewer than two samples.
        """
        if len(samples) < 2:
            raise ValueError(f"standardising needs at least two sketches, got {len(samples)}.")
        planes = [F.interpolate(rearrange(z, "(h w) d -> 1 d h w", h=g[0]), size=(self.side, self.side),
                                mode="bilinear", align_corners=True) for z, g in samples]
        self.mean.copy_(rearrange(torch.cat(planes).mean(0), "d h w -> h w d"))
        centred = torch.cat([z - self.slot_mean(torch.tensor([g], device=z.device), len(z))[0] for z, g in samples])
        self.std.copy_(centred.std(0).clamp_min(1e-3))
        self.fitted.fill_(True)


class OwnVision(nn.Module):
    """The model's own (frozen) eye and connector looking at the sketch, pooled to at most k latents.

    Modal-Mixed CoT (2602.00574) pools 256 tokens to 32; here small pictures keep one latent a token.
    """

    def __init__(self, width: int, k: int = 32):
        super().__init__()
        self.k = k
        self.standardizer = Standardizer(width, side=max(1, math.isqrt(k)))

    @property
    def width(self) -> int:
        return self.standardizer.std.shape[0]

    def grid(self, height: int, width: int, k: int | None = None) -> tuple[int, int]:
        return latent_grid(height, width, min(k or self.k, self.k))

    @torch.no_grad()
    def tokens(self, backbone, pictures: Pictures, grids: list[tuple[int, int]] | None = None) -> list[torch.Tensor]:
        """Raw latents of each picture, one (h'*w', D) tensor a picture."""
        seen = [tuple(g) for g in backbone.merged(pictures).tolist()]
        grids = grids or [self.grid(*g) for g in seen]
        return [pool(t.float(), s, tuple(g)) for t, s, g in zip(backbone.see(pictures), seen, grids, strict=True)]

    @torch.no_grad()
    def forward(self, backbone, batch: MixedBatch) -> torch.Tensor:
        """Raw targets (S, K, D) of the batch's spans, zero beyond a span's length.

        Raises:
            ValueError: spans without pictures to teach them.
        """
        if batch.sketches is None or len(batch.sketches) != len(batch.spans):
            raise ValueError(f"{len(batch.spans)} spans but {0 if batch.sketches is None else len(batch.sketches)} "
                             "sketches to teach them.")
        grids = [tuple(g) for g in batch.spans[:, 2:].tolist()]
        tokens = self.tokens(backbone, batch.sketches, grids)
        k = int(batch.span_lengths.max())
        return torch.stack([F.pad(t, (0, 0, 0, k - len(t))) for t in tokens])
