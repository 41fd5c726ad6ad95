"""MixedBatch: examples as tensors, with a type per position, spans of latents, left padding, and the one shift.

Shape letters of the whole project: B rows, N positions, D backbone width, S spans, K latents a span (padded to the
longest), Z latent width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image as PILImage

from .tokenization import IMAGE, LATENT, PAD, TEXT

__all__ = [
    "IMAGE",
    "LATENT",
    "PAD",
    "TEXT",
    "BatchLayout",
    "Box",
    "Grid",
    "ImageBatch",
    "MixedBatch",
    "prompt_batch",
    "shift_right",
    "to_device",
]

Grid = tuple[int, int]  # height and width in tokens or latents
Box = tuple[int, float, float, float, float]  # the image before a span (-1: none) and a region x0 y0 x1 y1 of it


def to_device(x: Any, device: torch.device | str) -> Any:
    """A tensor or a part of a batch on a device; what is neither, as it is.

    A GPU gets tensors from pinned memory, so that the host does not wait for the copy.
    """
    if isinstance(x, torch.Tensor) and torch.device(device).type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device) if hasattr(x, "to") else x


@dataclass
class ImageBatch:
    """n images for a vision encoder.

    ``grid`` (n, 3) holds patches as (t, h, w). It stays on the host, since shapes follow from it; ``sizes`` is the same
    as numbers. ``pixels`` is (all patches, patch size). ``features`` holds what a frozen encoder has computed already,
    one (T, D) tensor an image, which move in one copy; then ``pixels`` is None.
    """

    grid: torch.Tensor
    pixels: torch.Tensor | None = None
    features: list[torch.Tensor] | None = None
    sizes: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.grid = self.grid.cpu()
        self.sizes = self.grid.tolist()

    def __len__(self) -> int:
        return len(self.grid)

    def to(self, device: torch.device | str) -> ImageBatch:
        features = self.features and list(to_device(torch.cat(self.features), device).split([*map(len, self.features)]))
        return ImageBatch(self.grid, to_device(self.pixels, device), features)


@dataclass
class BatchLayout:
    """Where everything stands in a batch, known on the host.

    A step that reads it from a device waits for all the work that is queued there. ``token_type`` (B, N), ``has_loss``
    (B, N) and ``spans`` (S, 4) are those of the batch. From them follow:

    Attributes:
        grids: the latent grid of each span.
        latents: span, row, position, slot, grid height and grid width of all n latents, six lists.
        latent_index: the same (6, n) on ``device``.
        text_index: row and position of text with a loss (2, n), on ``device``.
        longest: K, the most latents of a span.
        has_padding: whether any position is padding.
    """

    token_type: np.ndarray
    has_loss: np.ndarray
    spans: np.ndarray
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        lengths = self.spans[:, 2] * self.spans[:, 3]
        span = np.arange(len(self.spans)).repeat(lengths)
        slot = np.arange(len(span)) - (lengths.cumsum() - lengths)[span]
        row, start, height, width = self.spans[span].T
        latents = np.stack([span, row, start + slot, slot, height, width])
        self.latents: list[list[int]] = latents.tolist()
        self.longest = int(lengths.max(initial=0))
        self.grids: list[Grid] = [(h, w) for h, w in self.spans[:, 2:].tolist()]
        self.has_padding = bool((self.token_type == PAD).any())
        texts = np.stack(((self.token_type == TEXT) & self.has_loss).nonzero())
        self.latent_index, self.text_index = (to_device(torch.tensor(x), self.device) for x in (latents, texts))

    def to(self, device: torch.device | str) -> BatchLayout:
        return replace(self, device=device)


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
    image_rows: list[int] = field(default_factory=list)  # the row each image belongs to
    boxes: list[Box] = field(default_factory=list)  # of each span
    raw_images: list[PILImage.Image] | None = None  # kept for losses on pixels only
    teacher_batch: MixedBatch | None = None  # the same examples as a teacher reads them
    document_lengths: list[list[tuple[int, int]]] | None = None  # packed rows: length and images of each example
    document_ids: torch.Tensor | None = None  # (B, N) packed rows: the example of a position, from 1 on; 0 is padding
    attention_mask: torch.Tensor | None = None  # (B, N, N) what a position may attend to; None: its example so far
    positions: torch.Tensor | None = None  # (axes, B, N) position ids; None for prompts that were made from ids
    layout: BatchLayout = None  # type: ignore[assignment]  # None: made from the fields above

    def __post_init__(self) -> None:
        if self.layout is None:
            host = (x.cpu().numpy() for x in (self.token_type, self.loss_weight > 0, self.spans))
            self.layout = BatchLayout(*host, device=self.ids.device)

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
        k = torch.arange(self.layout.longest, device=self.ids.device)
        mask = k < self.span_lengths[:, None]
        position = torch.where(mask, self.spans[:, 1:2] + k, self.spans[:, 1:2])
        return self.spans[:, :1].expand_as(position), position, mask

    def latent_places(self) -> tuple[torch.Tensor, ...]:
        """Of all n latents: span, row, position, slot (n,) and grid (n, 2)."""
        return *self.layout.latent_index[:4], self.layout.latent_index[4:].T

    def to(self, device: torch.device | str) -> MixedBatch:
        return replace(self, **{f.name: to_device(getattr(self, f.name), device) for f in fields(self)})


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
    return MixedBatch(
        ids,
        token_type,
        torch.zeros(ids.shape, device=ids.device),
        ids.new_zeros(0, 4),
        torch.zeros(0, device=ids.device),
        images,
        image_rows=rows.cpu()[np.cumsum([0, *image_lengths])[:-1]].tolist(),
    )
