"""What a sketch's latents should be, and the space in which they are learnt.

A target never moves while a head trains: it is computed without gradient (S1 of the method rules: in a released code
the loss also pulled the target toward the prediction).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image as PILImage
from torch import nn

from ..trace import Sketch
from .batch import MixedBatch, Pictures


def latent_grid(height: int, width: int, k: int) -> tuple[int, int]:
    """The grid of at most k latents that a picture of height x width tokens becomes.

    A picture with at most k tokens keeps its own grid: pooling never invents tokens. Otherwise h' * w' = k with the
    nearest aspect ratio and h' <= height, w' <= width; where k has no such factors, the largest smaller count that has.
    """
    if height * width <= k:
        return height, width
    for count in range(k, 0, -1):
        fits = [(h, count // h) for h in range(1, count + 1) if count % h == 0 and h <= height and count // h <= width]
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
    def fit(self, samples: list[tuple[torch.Tensor, tuple[int, int]]], centred: bool = True) -> None:
        """Statistics of training targets: pairs of (h*w, D) tokens and their grid. Not ``centred``, targets are divided
        by one number, their rms, and keep the constant of their place: what most papers do.

        Raises:
            ValueError: fewer than two samples.
        """
        if len(samples) < 2:
            raise ValueError(f"standardising needs at least two sketches, got {len(samples)}.")
        if not centred:
            self.mean.zero_()
            self.std.fill_(torch.cat([z for z, _ in samples]).square().mean().sqrt().clamp_min(1e-3))
            self.fitted.fill_(True)
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
        centred = torch.cat([z - self.slot_mean(torch.tensor([g], device=z.device), len(z))[0] for z, g in samples])
        self.std.copy_(centred.std(0).clamp_min(1e-3))
        self.fitted.fill_(True)


class OwnVision(nn.Module):
    """The model's own (frozen) eye and connector looking at the sketch, as at most k latents.

    Modal-Mixed CoT (2602.00574) pools 256 tokens to 32; here small pictures keep one latent a token. ``shrink`` makes
    the picture small before it is looked at instead of pooling its tokens (SwimBird 2602.06040).

    Other targets of pictures override what differs: how a picture is looked at, and what becomes of what is seen.
    """

    shows = True  # whether latents show the picture of their sketch, piece by piece

    def __init__(self, width: int, k: int = 32, shrink: bool = False):
        super().__init__()
        self.k, self.shrink = k, shrink
        self.standardizer = Standardizer(width, side=max(1, math.isqrt(k)))

    def grid(self, height: int, width: int, k: int | None = None) -> tuple[int, int]:
        """The latent grid of a picture of height x width tokens of the backbone; k asks for fewer."""
        return latent_grid(height, width, min(k or self.k, self.k))

    def span_grid(self, backbone, sketch: Sketch, seen: PILImage.Image | None) -> tuple[int, int]:
        """The latent grid of a sketch that comes after the picture ``seen``."""
        return self.grid(*backbone.token_grid(sketch.image), sketch.k)

    # -- looking ---------------------------------------------------------------------------------------------------
    def look(self, backbone, pictures: Sequence[PILImage.Image]) -> Pictures:
        """Pictures as the eye of this target takes them."""
        if self.shrink:
            sizes = [self.grid(*backbone.token_grid(p)) for p in pictures]
            pictures = [
                p.resize((w * backbone.cell, h * backbone.cell)) for p, (h, w) in zip(pictures, sizes, strict=True)
            ]
        return backbone.look_whole(list(pictures))

    def see(self, backbone, pictures: Pictures) -> list[torch.Tensor]:
        """What that eye sees: one (T, C) tensor a picture, row-major."""
        return backbone.see(pictures)

    def sizes(self, backbone, pictures: Pictures) -> list[tuple[int, int]]:
        return [tuple(size) for size in backbone.merged(pictures).tolist()]

    # -- latents ---------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def features(self, backbone, pictures: Pictures, grids: list[tuple[int, int]] | None = None) -> list[torch.Tensor]:
        """What is seen, pooled to the latent grids: one (h'*w', C) tensor a picture."""
        sizes = self.sizes(backbone, pictures)
        grids = grids or [self.grid(*size) for size in sizes]
        seen = self.see(backbone, pictures)
        return [pool(t.float(), s, tuple(g)) for t, s, g in zip(seen, sizes, grids, strict=True)]

    def samples(self, backbone, batch: MixedBatch) -> list[tuple[torch.Tensor, tuple[int, int]]]:
        """Features of a batch's sketches with their grids: what :meth:`fit` takes."""
        grids = [tuple(g) for g in batch.spans[:, 2:].tolist()]
        return list(zip(self.features(backbone, batch.sketches, grids), grids, strict=True))

    def latents(self, backbone, pictures: Pictures, grids: list[tuple[int, int]] | None = None) -> list[torch.Tensor]:
        """What a head learns to draw, one (h'*w', Z) tensor a picture."""
        return self.features(backbone, pictures, grids)

    def feedback(self, backbone, z: torch.Tensor) -> torch.Tensor:
        """Latents (..., Z) as the backbone takes them (..., D)."""
        return z

    def tokens(self, backbone, pictures: Pictures, grids: list[tuple[int, int]] | None = None) -> list[torch.Tensor]:
        """Latents of each picture as they are fed: one (h'*w', D) tensor a picture."""
        return [self.feedback(backbone, z) for z in self.latents(backbone, pictures, grids)]

    def forward(self, backbone, batch: MixedBatch) -> torch.Tensor:
        """Latents (S, K, Z) of the batch's spans, zero beyond a span's length.

        Raises:
            ValueError: spans without pictures to teach them.
        """
        if batch.sketches is None or len(batch.sketches) != len(batch.spans):
            raise ValueError(
                f"{len(batch.spans)} spans but {0 if batch.sketches is None else len(batch.sketches)} "
                "sketches to teach them."
            )
        latents = self.latents(backbone, batch.sketches, [tuple(g) for g in batch.spans[:, 2:].tolist()])
        k = int(batch.span_lengths.max())
        return torch.stack([F.pad(z, (0, 0, 0, k - len(z))) for z in latents])

    # -- the space they are learnt in ------------------------------------------------------------------------------
    def fit(self, features: list[tuple[torch.Tensor, tuple[int, int]]], centred: bool = True) -> None:
        """Statistics of training features with their grids; see :meth:`Standardizer.fit`."""
        self.standardizer.fit(features, centred)

    def standard(self, z: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
        """(S, K, Z) latents -> the space they are learnt in."""
        return self.standardizer(z, grids)

    @property
    def spread(self) -> torch.Tensor:
        """(Z,) or () std of a channel."""
        return self.standardizer.std

    def unstandard(self, z: torch.Tensor, grids: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
        """(n, Z) as learnt -> latents, for those at ``slot`` (n,) of spans of ``grids`` (n, 2)."""
        mean = self.standardizer.slot_mean(grids, int(grids.prod(-1).max()))
        return (
            z * self.standardizer.std
            + mean[torch.arange(len(slot), device=slot.device), slot.clamp_max(grids.prod(-1) - 1)]
        )


class BeforeConnector(OwnVision):
    """The own eye before its connector (Latent Sketchpad 2510.24514): its C = Z channels are drawn, and the frozen
    connector brings them into the backbone's space."""

    def see(self, backbone, pictures):
        return backbone.features(pictures) if pictures.tokens is None else pictures.tokens

    def feedback(self, backbone, z):
        return backbone.connect(z)


class OutsideEncoder(OwnVision):
    """A frozen encoder from outside looks at the sketch; its features, standardised and pooled, are projected into the
    backbone's space (SkiLa 2512.16584). The projector learns on the input path only, as the loss sees its output
    detached; that output has unit RMS, or the words would blow it up and the loss run after it. ``encoder`` is kept out
    of the weights, as it is never trained: its name brings it back."""

    def __init__(self, encoder, width: int, k: int = 27):
        super().__init__(encoder.width, k)
        self._encoder = [encoder]  # in a list, so that it is no submodule
        self.project = nn.Linear(encoder.width, width)

    @property
    def encoder(self):
        return self._encoder[0]

    def grid(self, height: int, width: int, k: int | None = None) -> tuple[int, int]:
        return latent_grid(self.encoder.side, self.encoder.side, min(k or self.k, self.k))

    def look(self, backbone, pictures):
        return self.encoder.look(list(pictures))

    def see(self, backbone, pictures):
        return self.encoder.see(pictures) if pictures.tokens is None else pictures.tokens

    def sizes(self, backbone, pictures):
        return [(self.encoder.side, self.encoder.side)] * len(pictures)

    def latents(self, backbone, pictures, grids=None):
        features = self.features(backbone, pictures, grids)
        grids = grids or [self.grid(0, 0)] * len(features)
        standard = [
            self.standardizer(f[None], torch.tensor([g], device=f.device))[0]
            for f, g in zip(features, grids, strict=True)
        ]
        projected = (self.project(f.to(self.project.weight.dtype)) for f in standard)
        return [F.rms_norm(p, p.shape[-1:]) for p in projected]

    def standard(self, z, grids):
        return z

    @property
    def spread(self):
        return self.project.weight.new_ones(())

    def unstandard(self, z, grids, slot):
        return z


class Region(OwnVision):
    """The tokens of a region of the picture already seen (LVR 2509.24251): the box of the sketch, or all of the
    picture. What a latent should be is in the context already, so this is the redundant control among the targets."""

    shows = False

    def region(self, box: Sequence[float], height: int, width: int) -> tuple[int, int, int, int]:
        """Rows and columns (top, bottom, left, right) of the tokens a box of shares touches, at least one."""
        x0, y0, x1, y1 = box
        top, left = min(int(y0 * height + 1e-6), height - 1), min(int(x0 * width + 1e-6), width - 1)
        return top, max(math.ceil(y1 * height - 1e-6), top + 1), left, max(math.ceil(x1 * width - 1e-6), left + 1)

    def span_grid(self, backbone, sketch, seen):
        if seen is None:
            raise ValueError("a region needs a picture before it, and there is none. Show the picture first.")
        top, bottom, left, right = self.region(sketch.box or (0, 0, 1, 1), *backbone.token_grid(seen))
        return self.grid(bottom - top, right - left, sketch.k)

    def samples(self, backbone, batch):
        grids = [tuple(g) for g in batch.spans[:, 2:].tolist()]
        return [(z[: h * w], (h, w)) for z, (h, w) in zip(self(backbone, batch), grids, strict=True)]

    @torch.no_grad()
    def forward(self, backbone, batch):
        sizes, seen = self.sizes(backbone, batch.images), backbone.see(batch.images)
        latents, k = [], int(batch.span_lengths.max())
        for (picture, *box), grid in zip(batch.boxes.tolist(), batch.spans[:, 2:].tolist(), strict=True):
            size = sizes[int(picture)]
            top, bottom, left, right = self.region(box, *size)
            cut = seen[int(picture)].float().unflatten(0, size)[top:bottom, left:right]
            z = pool(cut.flatten(0, 1), (bottom - top, right - left), tuple(grid))
            latents.append(F.pad(z, (0, 0, 0, k - len(z))))
        return torch.stack(latents)
