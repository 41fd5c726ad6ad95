"""MixedBatch: examples as tensors, with a type per position, spans of latents, left padding, and the one shift.

Shape letters of the whole project: B rows, N positions, D backbone width, S spans, K latents a span (padded to the
longest), Z latent width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from PIL import Image as PILImage

from .tokenization import IMAGE, LATENT, PAD, TEXT

__all__ = ["IMAGE", "LATENT", "PAD", "TEXT", "ImageBatch", "MixedBatch", "prompt_batch", "shift_right"]


@dataclass
class ImageBatch:
    """n images for a vision encoder.

    ``grid`` (n, 3) holds patches as (t, h, w). ``pixels`` is (all patches, patch size). ``features`` holds what a
    frozen encoder has computed already, one (T, D) tensor an image; then ``pixels`` is None.
    """

    grid: torch.Tensor
    pixels: torch.Tensor | None = None
    features: list[torch.Tensor] | None = None

    def __len__(self) -> int:
        return len(self.grid)

    def to(self, device: torch.device | str) -> ImageBatch:
        return ImageBatch(
            self.grid.to(device),
            None if self.pixels is None else self.pixels.to(device),
            None if self.features is None else [f.to(device) for f in self.features],
        )


@dataclass
class MixedBatch:
    """Rows of text, image and latent positions. Fields after ``boxes`` are used in training only."""

    ids: torch.Tensor  # (B, N) image and latent positions hold placeholder ids
    token_type: torch.Tensor  # (B, N) PAD TEXT IMAGE LATENT
    loss_weight: torch.Tensor  # (B, N) weight of predicting this position as text
    spans: torch.Tensor  # (S, 4) row, position of the first latent, grid height, grid width
    span_weight: torch.Tensor  # (S,) weight of the latent loss
    images: ImageBatch | None = None
    sketches: ImageBatch | None = None  # one image a span; None where no image is the target (prompts)
    image_rows: torch.Tensor | None = None  # (n,) the row each image belongs to
    boxes: torch.Tensor | None = None  # (S, 5) the image before each span (-1: none) and a region x0 y0 x1 y1 of it
    raw_images: list[PILImage.Image] | None = None  # kept for losses on pixels only
    teacher_batch: MixedBatch | None = None  # the same examples as a teacher reads them
    document_lengths: list[list[tuple[int, int]]] | None = (
        None  # per row: length and image count of each packed example
    )
    document_ids: torch.Tensor | None = None  # (B, N) packed rows: the example of a position, from 1 on; 0 is padding
    attention_mask: torch.Tensor | None = None  # (B, N, N) what a position may attend to; None: its example so far

    @property
    def mask(self) -> torch.Tensor:
        """(B, N) True where a position is not padding."""
        return self.token_type != PAD

    @property
    def span_lengths(self) -> torch.Tensor:
        """(S,) latents of each span."""
        return self.spans[:, 2] * self.spans[:, 3]

    def latent_slots(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows (S, K), positions (S, K) and mask (S, K) of the latents of every span."""
        k = torch.arange(int(self.span_lengths.max()) if len(self.spans) else 0, device=self.ids.device)
        mask = k < self.span_lengths[:, None]
        position = torch.where(mask, self.spans[:, 1:2] + k, self.spans[:, 1:2])
        return self.spans[:, :1].expand_as(position), position, mask

    def latent_places(self) -> tuple[torch.Tensor, ...]:
        """Of all n latents: span, row, position, slot (n,) and grid (n, 2)."""
        rows, position, mask = self.latent_slots()
        span, slot = mask.nonzero(as_tuple=True)
        return span, rows[mask], position[mask], slot, self.spans[span, 2:]

    def to(self, device: torch.device | str) -> MixedBatch:
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: value.to(device) for name, value in moved.items() if hasattr(value, "to")})


def shift_right(x: torch.Tensor) -> torch.Tensor:
    """The one shift: (B, N, ...) -> (B, N, ...) whose entry t is x at t - 1, the state that predicts position t.

    It holds for text and latents alike. Entry 0 is zero: nothing predicts the first position.
    """
    return F.pad(x[:, :-1], (0, 0) * (x.ndim - 2) + (1, 0))


def prompt_batch(
    ids: torch.Tensor, token_type: torch.Tensor, images: ImageBatch | None, image_lengths: list[int]
) -> MixedBatch:
    """Rows of ids (B, N) as prompts. ``image_lengths`` are the image positions each image takes, in row order.

    Raises:
        ValueError: a row holds latent positions, or the image positions do not match the images.
    """
    if (token_type == LATENT).any():
        raise ValueError(
            "the input ids contain latent placeholders, but ids do not say what the latents are. "
            "Remove the sketches from the prompt, or let the model generate them."
        )
    rows = (token_type == IMAGE).nonzero()[:, 0]
    if len(rows) != sum(image_lengths):
        raise ValueError(
            f"the input ids hold {len(rows)} image positions, but the images take {sum(image_lengths)}. "
            "Pass the images in the order in which they stand in the rows."
        )
    first = torch.tensor([0, *image_lengths][: len(image_lengths)], dtype=torch.long).cumsum(0)
    return MixedBatch(
        ids,
        token_type,
        torch.zeros(ids.shape, device=ids.device),
        ids.new_zeros(0, 4),
        torch.zeros(0, device=ids.device),
        images,
        image_rows=rows[first.to(rows.device)],
    )
