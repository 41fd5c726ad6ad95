"""MixedBatch: traces as tensors. Kinds per position, spans, left padding and THE one shift.

Shape letters of the whole project: B rows, N positions, D backbone width, S spans, K latents a span (padded to the
longest), Z latent width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F

from ..trace import Trace
from .tokenization import IMAGE, LATENT, PAD, TEXT, Row, Vocabulary

__all__ = [
    "IMAGE",
    "LATENT",
    "PAD",
    "TEXT",
    "Collator",
    "MixedBatch",
    "Pictures",
    "before",
    "collate",
    "prompts",
    "within",
]


@dataclass
class Pictures:
    """n pictures for the eye: ``grid`` (n, 3) patches as (t, h, w), ``pixels`` (all patches, patch size), or the
    ``tokens`` a frozen eye has already made of them (one (T, D) tensor a picture)."""

    grid: torch.Tensor
    pixels: torch.Tensor | None = None
    tokens: list[torch.Tensor] | None = None

    def __len__(self) -> int:
        return len(self.grid)

    def to(self, device) -> Pictures:
        return Pictures(
            self.grid.to(device),
            None if self.pixels is None else self.pixels.to(device),
            None if self.tokens is None else [t.to(device) for t in self.tokens],
        )


@dataclass
class MixedBatch:
    """Rows of text, picture and latent positions.

    Raises nothing by itself; :func:`collate` checks that spans and sketches match.
    """

    ids: torch.Tensor  # (B, N) placeholders stand at picture and latent positions
    kind: torch.Tensor  # (B, N) PAD TEXT IMAGE LATENT
    weight: torch.Tensor  # (B, N) weight of predicting this position as text
    spans: torch.Tensor  # (S, 4) row, first latent, grid height, grid width
    span_weight: torch.Tensor  # (S,)
    images: Pictures | None = None
    sketches: Pictures | None = None  # span by span; None where nothing is taught (prompts)
    image_rows: torch.Tensor | None = None  # (n,) the row each picture belongs to
    boxes: torch.Tensor | None = None  # (S, 5) the picture before each span (-1: none) and a region x0 y0 x1 y1 of it
    shown: list | None = None  # the pictures themselves, kept only for losses on pixels
    told: MixedBatch | None = None  # the same traces as a teacher reads them
    documents: list[list[tuple[int, int]]] | None = None  # row by row, length and pictures of each trace packed into it
    number: torch.Tensor | None = None  # (B, N) of packed rows, which trace a position belongs to, from 1 on; 0: none
    sees: torch.Tensor | None = None  # (B, N, N) what a position may attend to; None: all of its trace before it

    @property
    def mask(self) -> torch.Tensor:
        return self.kind != PAD  # (B, N)

    @property
    def span_lengths(self) -> torch.Tensor:
        return self.spans[:, 2] * self.spans[:, 3]  # (S,)

    def attention(self, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """What the positions from ``start`` to ``stop`` may attend to, as a backbone's trunk takes it."""
        if self.sees is not None:
            return self.sees[:, start:stop, :stop]
        return (self.mask if self.number is None else self.number)[:, :stop]

    def slots(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows (S, K), positions (S, K) and mask (S, K) of the latents of every span."""
        k = torch.arange(int(self.span_lengths.max()) if len(self.spans) else 0, device=self.ids.device)
        mask = k < self.span_lengths[:, None]
        position = torch.where(mask, self.spans[:, 1:2] + k, self.spans[:, 1:2])
        return self.spans[:, :1].expand_as(position), position, mask

    def shortened(self, k: int) -> MixedBatch:
        """The same rows with at most the first k latents of every span, taught by nothing."""
        rows, position, mask = self.slots()
        drop = mask & (torch.arange(mask.shape[1], device=mask.device) >= k)
        keep = self.mask.index_put((rows[drop], position[drop]), torch.zeros_like(rows[drop], dtype=torch.bool))
        order = keep.int().argsort(dim=1, stable=True)  # what goes, goes to the left, where it becomes padding
        first = int((~keep).sum(1).min())
        kind = torch.where(keep.gather(1, order), self.kind.gather(1, order), PAD)
        after = keep.flip(1).cumsum(1).flip(1)  # positions kept from here on
        starts = keep.shape[1] - after[self.spans[:, 0], self.spans[:, 1]]
        cut = (self.span_lengths > k)[:, None]
        grids = torch.where(cut, torch.tensor([1, k], device=cut.device), self.spans[:, 2:])
        return replace(
            self,
            ids=self.ids.gather(1, order)[:, first:],
            kind=kind[:, first:],
            weight=self.weight.gather(1, order)[:, first:],
            sketches=None,
            told=None,
            sees=None if self.sees is None else _both(self.sees, order)[:, first:, first:],
            spans=torch.cat([self.spans[:, :1], (starts - first)[:, None], grids], 1),
        )

    def to(self, device) -> MixedBatch:
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{n: v.to(device) for n, v in moved.items() if hasattr(v, "to")})


def _both(sees: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """(B, N, N) with rows and columns in another order (B, N)."""
    n = order.shape[1]
    return sees.gather(1, order[:, :, None].expand(-1, -1, n)).gather(2, order[:, None].expand(-1, n, -1))


def _numbered(documents: list[list[tuple[int, int]]], width: int) -> torch.Tensor:
    """(B, N) which document of its row a position belongs to, from 1 on; 0 where there is padding."""
    return torch.stack(
        [
            F.pad(
                torch.arange(1, len(row) + 1).repeat_interleave(torch.tensor([n for n, _ in row])),
                (width - sum(n for n, _ in row), 0),
            )
            for row in documents
        ]
    )


def within(number: torch.Tensor, n: int | None = None) -> torch.Tensor:
    """Numbers (B, m) as :meth:`MixedBatch.attention` gives them (or a mask of what is there) -> (B, n, m): each of the
    last n (default all) positions sees what is before it and of its number. Padding sees itself, or its attention would
    be undefined."""
    m = number.shape[1]
    at = torch.arange(m, device=number.device)
    late, own = at[m - (n or m) :], number[:, m - (n or m) :]
    same = (own[:, :, None] == number[:, None]) & (number[:, None] > 0)
    return same & (at <= late[:, None]) | (at == late[:, None])


def before(x: torch.Tensor) -> torch.Tensor:
    """THE one shift: (B, N, ...) -> (B, N, ...) whose entry t is x at t - 1, the state from which position t is
    predicted, be it a word or a latent. Entry 0 is zero: nothing predicts the first position."""
    return F.pad(x[:, :-1], (0, 0) * (x.ndim - 2) + (1, 0))


def collate(rows: Sequence[Row], pad: int, look: Callable, look_at_sketches: Callable | None = None) -> MixedBatch:
    """Left-pad encoded rows into one batch. ``look(pictures) -> Pictures`` readies pictures for the eye, and
    ``look_at_sketches`` those of sketches, where another eye sees them.

    Raises:
        ValueError: a row has spans without a picture to teach them, or the other way round.
    """
    width = max(len(r.ids) for r in rows)

    def table(name, fill, dtype):
        return torch.tensor([[fill] * (width - len(r.ids)) + getattr(r, name) for r in rows], dtype=dtype)

    for i, r in enumerate(rows):
        if len(r.spans) != len(r.sketches):
            raise ValueError(
                f"row {i}: {len(r.spans)} spans of latents but {len(r.sketches)} sketches. "
                "Every span needs its picture."
            )
    spans = [(i, s + width - len(r.ids), h, w) for i, r in enumerate(rows) for s, h, w in r.spans]
    images, boxes, first = [p for r in rows for p in r.images], [], 0
    for r in rows:
        boxes += [(first + picture if picture >= 0 else -1, *box) for picture, *box in r.boxes]
        first += len(r.images)
    sketches = [p for r in rows for p in r.sketches]
    if (drawn := sum(p is not None for p in sketches)) not in (0, len(sketches)):
        raise ValueError(f"{drawn} of {len(sketches)} sketches of a batch have a picture. All of them, or none.")
    told = [r.told for r in rows if r.told is not None]
    packed = [r.documents or [(len(r.ids), len(r.images))] for r in rows] if any(r.documents for r in rows) else None
    return MixedBatch(
        documents=packed,
        number=_numbered(packed, width) if packed else None,
        ids=table("ids", pad, torch.long),
        kind=table("kind", PAD, torch.long),
        weight=table("weight", 0.0, torch.float32),
        spans=torch.tensor(spans, dtype=torch.long).reshape(-1, 4),
        span_weight=torch.tensor([w for r in rows for w in r.span_weight], dtype=torch.float32),
        images=look(images) if images else None,
        sketches=(look_at_sketches or look)(sketches) if drawn else None,
        image_rows=torch.tensor([i for i, r in enumerate(rows) for _ in r.images], dtype=torch.long),
        boxes=torch.tensor(boxes, dtype=torch.float64).reshape(-1, 5),
        told=collate(told, pad, look, look_at_sketches) if told else None,
    )


def prompts(ids: torch.Tensor, kind: torch.Tensor, pictures: Pictures | None, sizes: Sequence[int]) -> MixedBatch:
    """Rows of ids (B, N) of their kinds as a batch that nothing is taught of. ``sizes`` are the picture positions that
    each picture takes, in the order in which they stand in the rows.

    Raises:
        ValueError: there are sketches, or as many picture positions as these pictures do not take.
    """
    if (kind == LATENT).any():
        raise ValueError(
            "a prompt of ids holds no sketches: what stands at their latents is not said by ids. Leave "
            "them out, or have them generated."
        )
    rows = (kind == IMAGE).nonzero()[:, 0]
    if len(rows) != sum(sizes):
        raise ValueError(
            f"{len(rows)} picture positions for pictures that take {sum(sizes)}. Give the pictures in the "
            "order in which they stand in the rows."
        )
    first = torch.tensor([0, *sizes][: len(sizes)], dtype=torch.long).cumsum(0)
    return MixedBatch(
        ids,
        kind,
        torch.zeros(ids.shape, device=ids.device),
        ids.new_zeros(0, 4),
        torch.zeros(0, device=ids.device),
        pictures,
        image_rows=rows[first.to(rows.device)],
    )


class Collator:
    """Traces in, one MixedBatch out: the bridge between what people read and what models eat.

    ``look`` turns pictures into :class:`Pictures`, ``look_at_sketches`` those of sketches; ``read(trace) -> trace`` is
    how a method wants its traces, ``told(trace) -> trace or None`` how its teacher does.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        look: Callable,
        look_at_sketches: Callable,
        laid: Callable,
        span_grid: Callable,
        read: Callable[[Trace], Trace] = lambda trace: trace,
        told: Callable[[Trace], Trace | None] = lambda trace: None,
    ):
        self.vocabulary, self.look, self.look_at_sketches = vocabulary, look, look_at_sketches
        self.laid, self.span_grid, self.read, self.told = laid, span_grid, read, told

    def encode(self, trace: Trace, *, generate: bool = False) -> Row:
        row = self.vocabulary.encode(self.read(trace), self.laid, self.span_grid, generate=generate)
        if not generate and (told := self.told(trace)) is not None:
            row.told = self.vocabulary.encode(told, self.laid, self.span_grid)
        return row

    def __call__(self, traces: Sequence[Trace], *, generate: bool = False) -> MixedBatch:
        rows = [self.encode(t, generate=generate) for t in traces]
        return collate(rows, self.vocabulary.pad, self.look, self.look_at_sketches)
