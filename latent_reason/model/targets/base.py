"""The interface of a latent target, pooling on a token grid, and the normalized space in which latents are learned.

A target never moves while a head trains: it is computed without gradient. (In a released code the latent loss also
pulled the target toward the prediction.)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image as PILImage
from torch import nn

from ...trace import Sketch
from ..arguments import KeepsArguments
from ..batch import Grid, ImageBatch, MixedBatch

if TYPE_CHECKING:
    from ..backbones.base import Backbone


def latent_grid(height: int, width: int, k: int) -> Grid:
    """The grid of at most ``k`` latents for an image of ``height`` x ``width`` tokens.

    An image with at most k tokens keeps its own grid: pooling never invents tokens. Otherwise h' * w' = k with the
    nearest aspect ratio, h' <= height and w' <= width. If k has no such factors, the largest smaller count that has.
    """
    if height * width <= k:
        return height, width
    for count in range(k, 0, -1):
        fits = [(h, count // h) for h in range(1, count + 1) if count % h == 0 and h <= height and count // h <= width]
        if fits:
            return min(fits, key=lambda g: abs(math.log(g[0] * width / (g[1] * height))))
    raise ValueError(f"k={k}: a sketch needs at least one latent.")


def pool_tokens(tokens: torch.Tensor, grid: Grid, to: Grid) -> torch.Tensor:
    """(h*w, D) -> (h'*w', D): 2-D average pooling on the token grid, row-major. It never cuts the flat sequence."""
    if grid == to:
        return tokens
    plane = rearrange(tokens, "(h w) d -> 1 d h w", h=grid[0])
    return rearrange(F.adaptive_avg_pool2d(plane, to), "1 d h w -> (h w) d")


MIN_SAMPLES = 8  # of a grid, so that its means are not those of single sketches


class Standardizer(nn.Module):
    """z -> (z - mean of its slot) / std of its channel, with stored statistics.

    Most of a pooled vision token is the constant of its place, and that constant alone nearly satisfies a raw
    regression loss. Means are stored on a ``side`` x ``side`` grid, and for every other grid of which fitting has seen
    at least ``MIN_SAMPLES`` sketches on that grid itself. For further grids they are interpolated. Stds are per channel,
    over centered values, at least 1e-3.

    ``places`` False: a slot is no place of the image, so that all slots share what is stored.
    """

    def __init__(self, width: int, side: int = 6, places: bool = True):
        super().__init__()
        self.side, self.places = side, places
        self.register_buffer("mean", torch.zeros(side, side, width))
        self.register_buffer("std", torch.ones(width))
        self.register_buffer("fitted", torch.tensor(False))
        self.reserve(0, 0)

    def reserve(self, num_grids: int, longest: int) -> None:
        """Have room for the means of so many grids of at most ``longest`` slots, all zero. Without grids there are no
        such tensors."""
        like = self.mean
        self.register_buffer("grids", like.new_zeros(num_grids, 2, dtype=torch.long) if num_grids else None)
        self.register_buffer("grid_means", like.new_zeros(num_grids, longest, like.shape[-1]) if num_grids else None)

    @property
    def stored_means(self) -> list[int]:
        """How many grids have means of their own, and the most slots of one; empty: none has."""
        return [] if self.grids is None else list(self.grid_means.shape[:2])

    def slot_mean(self, grids: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
        """(..., D) means at ``slot`` (...), row-major, of spans of ``grids`` (..., 2); zero beyond a span's length."""
        mean = self._interpolated_mean(grids, slot)
        if self.grids is not None:
            is_stored = (grids[..., None, :] == self.grids).all(-1)  # (..., G)
            stored = self.grid_means[is_stored.int().argmax(-1), slot % self.grid_means.shape[1]]
            mean = torch.where(is_stored.any(-1)[..., None], stored.to(mean.dtype), mean)
        return (mean * (slot < grids.prod(-1))[..., None]).to(self.mean.dtype)

    def _interpolated_mean(self, grids: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
        """(..., D) the means of the square grid at the same places of other grids, in fp32 at least. They are
        interpolated on the device: a loop over grids would read them from it."""
        mean, last = self.mean.to(torch.promote_types(self.mean.dtype, torch.float32)), self.side - 1
        mean = torch.cat([mean, mean.mean(0, keepdim=True)])  # a single row has the mean over rows, at last + 1: with
        mean = torch.cat([mean, mean.mean(1, keepdim=True)], 1)  # aligned corners it would be the first one
        place, steps = torch.stack([slot // grids[..., 1], slot % grids[..., 1]], -1) * last, (grids - 1).clamp_min(1)
        (top, left), (bottom, right) = (
            torch.where(grids > 1, (place // steps + i).clamp_max(last), last + 1).unbind(-1) for i in (0, 1)
        )
        down, across = ((place % steps).to(mean) / steps)[..., None, :].unbind(-1)
        upper = mean[top, left].lerp(mean[top, right], across)
        lower = mean[bottom, left].lerp(mean[bottom, right], across)
        return upper.lerp(lower, down)

    def forward(self, z: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        """(S, K, D) raw -> standardized."""
        return (z - self.slot_mean(grids[:, None], torch.arange(z.shape[1], device=z.device))) / self.std

    def inverse(self, z: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        """(S, K, D) standardized -> raw."""
        return z * self.std + self.slot_mean(grids[:, None], torch.arange(z.shape[1], device=z.device))

    @torch.no_grad()
    def fit(self, samples: list[tuple[torch.Tensor, Grid]], center: bool = True) -> None:
        """Set the statistics from pairs of (h*w, D) tokens and their grid. Without ``center``, targets are divided by
        one number, their rms, and keep the constant of their place, as most papers do.

        Raises:
            ValueError: fewer than two samples.
        """
        if len(samples) < 2:
            raise ValueError(f"standardizing needs at least two sketches, got {len(samples)}.")
        self.reserve(0, 0)
        self.fitted.fill_(True)
        if not center:
            self.mean.zero_()
            self.std.fill_(torch.cat([z for z, _ in samples]).square().mean().sqrt().clamp_min(1e-3))
            return
        planes = [
            F.interpolate(
                rearrange(z, "(h w) d -> 1 d h w", h=g[0]),
                size=(self.side, self.side),
                mode="bilinear",
                align_corners=True,
            )
            for z, g in samples
        ]
        self.mean.copy_(rearrange(torch.cat(planes).mean(0), "d h w -> h w d"))
        if self.places:
            self._fit_grids(samples)
        places = [torch.tensor([(*g, slot) for slot in range(len(z))], device=z.device) for z, g in samples]
        centered = torch.cat(
            [z - self.slot_mean(at[:, :2], at[:, 2]) for (z, _), at in zip(samples, places, strict=True)]
        )
        self.std.copy_(centered.std(0).clamp_min(1e-3))

    def _fit_grids(self, samples: list[tuple[torch.Tensor, Grid]]) -> None:
        """Set the means of every grid with enough samples."""
        by_grid: dict[Grid, list[torch.Tensor]] = {}
        for z, grid in samples:
            by_grid.setdefault((int(grid[0]), int(grid[1])), []).append(z)
        means = {g: torch.stack(z).mean(0) for g, z in sorted(by_grid.items()) if len(z) >= MIN_SAMPLES}
        square = means.pop((self.side, self.side), None)
        if square is not None:  # other grids do not move it
            self.mean.copy_(square.unflatten(0, (self.side, self.side)))
        self.reserve(len(means), max(map(len, means.values()), default=0))
        for number, (grid, mean) in enumerate(means.items()):
            self.grids[number] = torch.tensor(grid)
            self.grid_means[number, : len(mean)] = mean


class LatentTarget(KeepsArguments, nn.Module, ABC):
    """What the latents of a sketch should be, and the space in which a head learns them.

    It is built with its backbone (kept outside the module tree) and encodes images of sketches to at most ``k``
    latents of width Z. Subclasses say how an image becomes features: :meth:`preprocess_images`,
    :meth:`encode_images`, :meth:`token_grids`; and, where latents are not inputs of the backbone yet,
    :meth:`to_embeddings`.
    """

    renderable = True  # whether latents show the image of their sketch, piece by piece

    def __init__(self, backbone: Backbone, width: int, k: int, side: int | None = None):
        super().__init__()
        self._backbone = [backbone]  # in a list, so that it is no submodule
        self.k = k
        self.standardizer = Standardizer(width, side or max(1, math.isqrt(k)))

    @property
    def backbone(self) -> Backbone:
        return self._backbone[0]

    # -- geometry -----------------------------------------------------------------------------------------------------
    def latent_grid(self, height: int, width: int, k: int | None = None) -> Grid:
        """The latent grid of an image of ``height`` x ``width`` backbone tokens. ``k`` asks for fewer latents."""
        return latent_grid(height, width, min(k or self.k, self.k))

    def span_grid(self, sketch: Sketch, image: PILImage.Image | None) -> Grid:
        """The latent grid of a sketch that comes after ``image``."""
        return self.latent_grid(*self.backbone.token_grid(sketch.image), sketch.k)

    # -- encoding -----------------------------------------------------------------------------------------------------
    @abstractmethod
    def preprocess_images(self, images: Sequence[PILImage.Image], *, tiled: bool = False) -> ImageBatch:
        """Images of sketches as the encoder takes them. ``tiled`` is ignored: sketches are never split into tiles."""

    @abstractmethod
    def encode_images(self, images: ImageBatch) -> list[torch.Tensor]:
        """Features of each image, one (T, C) tensor, row-major."""

    @abstractmethod
    def token_grids(self, images: ImageBatch) -> list[Grid]:
        """The token grid of the features of each image."""

    @torch.no_grad()
    def pooled_features(self, images: ImageBatch, grids: list[Grid] | None = None) -> list[torch.Tensor]:
        """Features pooled to the latent grids: one (h'*w', C) tensor an image."""
        sizes = self.token_grids(images)
        grids = grids or [self.latent_grid(*size) for size in sizes]
        features = self.encode_images(images)
        return [pool_tokens(f.float(), s, (g[0], g[1])) for f, s, g in zip(features, sizes, grids, strict=True)]

    def encode(self, images: ImageBatch, grids: list[Grid] | None = None) -> list[torch.Tensor]:
        """Latents that a head learns to produce: one (h'*w', Z) tensor an image."""
        return self.pooled_features(images, grids)

    def encode_embeddings(self, images: ImageBatch, grids: list[Grid] | None = None) -> list[torch.Tensor]:
        """Latents as the backbone takes them: one (h'*w', D) tensor an image."""
        return [self.to_embeddings(z) for z in self.encode(images, grids)]

    def forward(self, batch: MixedBatch) -> torch.Tensor:
        """Latents (S, K, Z) of the batch's spans, zero beyond a span's length.

        Raises:
            ValueError: the spans have no sketches.
        """
        if batch.sketches is None or len(batch.sketches) != len(batch.spans):
            count = 0 if batch.sketches is None else len(batch.sketches)
            raise ValueError(f"{len(batch.spans)} spans but {count} sketches as their targets.")
        latents = self.encode(batch.sketches, batch.layout.grids)
        return pad_spans(latents, batch.layout.longest)

    def to_embeddings(self, z: torch.Tensor) -> torch.Tensor:
        """Latents (..., Z) -> inputs of the backbone (..., D)."""
        return z

    # -- the space in which a head learns -----------------------------------------------------------------------------
    def statistics_samples(self, batch: MixedBatch) -> list[tuple[torch.Tensor, Grid]]:
        """Features of a batch's sketches with their grids, for :meth:`fit_statistics`."""
        grids = batch.layout.grids
        return list(zip(self.pooled_features(batch.sketches, grids), grids, strict=True))

    def fit_statistics(self, samples: list[tuple[torch.Tensor, Grid]], center: bool = True) -> None:
        """Fit the statistics of training features; see :meth:`Standardizer.fit`."""
        self.standardizer.fit(samples, center)

    def normalize(self, z: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        """(S, K, Z) latents -> the space in which a head learns them."""
        return self.standardizer(z, grids)

    @property
    def std(self) -> torch.Tensor:
        """(Z,) or () std of a channel of the latents."""
        return self.standardizer.std

    def denormalize(self, z: torch.Tensor, grids: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
        """(n, Z) outputs of a head -> latents, for those at ``slot`` (n,) of spans of ``grids`` (n, 2)."""
        slot = slot.clamp_max(grids.prod(-1) - 1)
        return z * self.standardizer.std + self.standardizer.slot_mean(grids, slot)


def pad_spans(latents: list[torch.Tensor], k: int) -> torch.Tensor:
    """(h*w, Z) tensors -> (S, k, Z), zero beyond their length."""
    return torch.stack([F.pad(z, (0, 0, 0, k - len(z))) for z in latents])
