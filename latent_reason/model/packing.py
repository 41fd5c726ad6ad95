"""Several traces in one row: fewer positions of padding, and nobody sees anybody else.

A row says which documents stand in it (``Row.documents``); masks, positions and losses then are those of each document
alone. Flash attention takes them end to end in one row (varlen), the others a mask of what each position sees.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .batch import PAD, MixedBatch
from .tokenization import Row


def packed(rows: Sequence[Row], budget: int) -> list[Row]:
    """Rows joined so that none is longer than ``budget`` positions (but one that is so alone), as few as will do and
    about equally long: the longest first, each to where least is so far."""
    lengths = [len(row.ids) for row in rows]
    budget = max(budget, *lengths)
    order = sorted(range(len(rows)), key=lambda i: -lengths[i])
    for count in range(-(-sum(lengths) // budget), len(rows) + 1):
        bins: list[list[int]] = [[] for _ in range(count)]
        load = [0] * count
        for i in order:
            least = load.index(min(load))
            bins[least].append(i)
            load[least] += lengths[i]
        if max(load) <= budget:
            break
    return [joined([rows[i] for i in bin]) for bin in bins]


def joined(rows: Sequence[Row]) -> Row:
    """One row of several."""
    out = Row()
    for row in rows:
        start, pictures = len(out.ids), len(out.images)
        out.spans += [(start + s, h, w) for s, h, w in row.spans]
        out.boxes += [(pictures + p if p >= 0 else p, *box) for p, *box in row.boxes]
        for name in ("ids", "kind", "weight", "images", "sketches", "span_weight"):
            getattr(out, name).extend(getattr(row, name))
        out.documents.append((len(row.ids), len(row.images)))
    return out


def apart(batch: MixedBatch) -> tuple[MixedBatch, torch.Tensor, torch.Tensor]:
    """A packed batch with every document in a row of its own, as far as positions need it; and which row (B, N) and
    position (B, N) of that batch each position came to. Padding comes to the first row."""
    b, n = batch.ids.shape
    width = max(length for row in batch.documents for length, _ in row)
    row, position = torch.zeros(2, b, n, dtype=torch.long)
    ids, kind = torch.zeros(0, width, dtype=torch.long), torch.zeros(0, width, dtype=torch.long)
    image_rows, number, device = [], 0, batch.ids.device
    for r, documents in enumerate(batch.documents):
        at = n - sum(length for length, _ in documents)
        for length, pictures in documents:
            row[r, at : at + length] = number
            position[r, at : at + length] = torch.arange(width - length, width)
            here = [
                torch.nn.functional.pad(x[r, at : at + length].cpu(), (width - length, 0), value=fill)[None]
                for x, fill in ((batch.ids, 0), (batch.kind, PAD))
            ]
            ids, kind = torch.cat([ids, here[0]]), torch.cat([kind, here[1]])
            image_rows += [number] * pictures
            at, number = at + length, number + 1
    row, position = row.to(device), position.to(device)
    spans = batch.spans.clone()
    spans[:, 0], spans[:, 1] = (x[batch.spans[:, 0], batch.spans[:, 1]] for x in (row, position))
    return (
        MixedBatch(
            ids.to(device),
            kind.to(device),
            torch.zeros_like(kind, dtype=torch.float).to(device),
            spans,
            batch.span_weight,
            images=batch.images,
            image_rows=torch.tensor(image_rows, dtype=torch.long, device=device),
        ),
        row,
        position,
    )
