"""Several examples in one row: less padding, the same loss. No example attends to another.

A row records its examples (``EncodedExample.document_lengths``). Masks, positions and losses are those of each example
alone. Flash attention takes all examples end to end in one row (varlen); other attentions take a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers.modeling_outputs import BaseModelOutput

from ..model.backbones.base import Backbone
from ..model.batch import PAD, ImageBatch, MixedBatch, to_device
from ..model.processor import CachedFeatures, EncodedExample, Processor, check_all_or_none


def pack_examples(rows: Sequence[EncodedExample], max_length: int) -> list[EncodedExample]:
    """Join examples into as few rows of at most ``max_length`` positions as possible (an example that is longer has a
    row of its own), of about equal length: the longest first, each into the row that is shortest so far."""
    lengths = [len(row.ids) for row in rows]
    max_length = max(max_length, *lengths)
    order = sorted(range(len(rows)), key=lambda i: -lengths[i])
    bins: list[list[int]] = []
    for count in range(-(-sum(lengths) // max_length), len(rows) + 1):
        bins = [[] for _ in range(count)]
        load = [0] * count
        for i in order:
            least = load.index(min(load))
            bins[least].append(i)
            load[least] += lengths[i]
        if max(load) <= max_length:
            break
    return [join_examples([rows[i] for i in bin]) for bin in bins]


def join_examples(rows: Sequence[EncodedExample]) -> EncodedExample:
    """One row of several examples."""
    out = EncodedExample()
    cached = any(row.image_features is not None or row.sketch_features is not None for row in rows)
    if cached:
        out.image_features, out.sketch_features = [], []
    for row in rows:
        start, images = len(out.ids), out.num_images
        out.spans += [(start + s, h, w) for s, h, w in row.spans]
        out.boxes += [(images + i if i >= 0 else i, *box) for i, *box in row.boxes]
        names = ["ids", "token_type", "loss_weight", "span_weight"]
        names += ["image_features", "sketch_features"] if cached else ["images", "sketches"]
        for name in names:
            getattr(out, name).extend(getattr(row, name) or [])
        out.document_lengths.append((len(row.ids), row.num_images))
    return out


def collate_examples(processor: Processor, rows: Sequence[EncodedExample]) -> MixedBatch:
    """:meth:`Processor.collate` of training examples: with cached features, with the batch of their teacher, and with
    the examples of packed rows. Raises as it does, also where only some rows have cached features."""
    batch = processor.collate(rows)
    if any(row.image_features is not None for row in rows):
        batch = _with_features(batch, rows)
    if teacher := [row.teacher_example for row in rows if row.teacher_example is not None]:
        batch = replace(batch, teacher_batch=collate_examples(processor, teacher))
    if any(row.document_lengths for row in rows):
        documents = [row.document_lengths or [(len(row.ids), row.num_images)] for row in rows]
        batch = replace(batch, document_lengths=documents, document_ids=document_ids(documents, batch.ids.shape[1]))
    return replace(batch, positions=batch_position_ids(processor.backbone, batch))


def batch_position_ids(backbone: Backbone, batch: MixedBatch) -> torch.Tensor:
    """Position ids (axes, B, N) of a batch; those of packed examples each start at 0."""
    if batch.document_lengths is None:
        return backbone.position_ids(batch)
    alone, row, position = unpack_documents(batch)
    return backbone.position_ids(alone)[:, row, position]


def _with_features(batch: MixedBatch, rows: Sequence[EncodedExample]) -> MixedBatch:
    """The batch with the cached features of its images and sketches."""
    if any(row.image_features is None and row.images for row in rows):
        raise ValueError("some rows hold images and others cached features. Encode all of them or none.")
    images = [f for row in rows for f in row.image_features or ()]
    sketches = [f for row in rows for f in row.sketch_features or ()]
    check_all_or_none(sketches)
    cached = [f for f in sketches if f is not None]
    return replace(
        batch,
        images=features_batch(images) if images else None,
        sketches=features_batch(cached) if cached else None,
    )


def features_batch(features: Sequence[CachedFeatures]) -> ImageBatch:
    """Cached features as a batch of images."""
    return ImageBatch(torch.stack([f.grid for f in features]), features=[f.features.float() for f in features])


def document_ids(documents: list[list[tuple[int, int]]], width: int) -> torch.Tensor:
    """(B, N) the packed example a position belongs to, from 1 on; 0 at padding."""
    rows = []
    for row in documents:
        lengths = torch.tensor([length for length, _ in row])
        ids = torch.arange(1, len(row) + 1).repeat_interleave(lengths)
        rows.append(F.pad(ids, (width - int(lengths.sum()), 0)))
    return torch.stack(rows)


def unpack_documents(batch: MixedBatch) -> tuple[MixedBatch, torch.Tensor, torch.Tensor]:
    """A packed batch with every example in a row of its own, as far as positions need it; and the row (B, N) and
    position (B, N) of that batch to which each position went. Padding goes to the first row."""
    assert batch.document_lengths is not None
    b, n = batch.ids.shape
    width = max(length for row in batch.document_lengths for length, _ in row)
    row, position = torch.zeros(2, b, n, dtype=torch.long)
    ids: list[torch.Tensor] = []
    token_type, image_rows, device = [], [], batch.ids.device
    for r, documents in enumerate(batch.document_lengths):
        at = n - sum(length for length, _ in documents)
        for length, images in documents:
            row[r, at : at + length] = len(ids)
            position[r, at : at + length] = torch.arange(width - length, width)
            image_rows += [len(ids)] * images
            ids.append(F.pad(batch.ids[r, at : at + length], (width - length, 0)))
            token_type.append(F.pad(batch.token_type[r, at : at + length], (width - length, 0), value=PAD))
            at += length
    row, position = row.to(device), position.to(device)
    spans = batch.spans.clone()
    spans[:, 0], spans[:, 1] = (x[batch.spans[:, 0], batch.spans[:, 1]] for x in (row, position))
    types = torch.stack(token_type)
    alone = MixedBatch(
        torch.stack(ids),
        types,
        torch.zeros(types.shape, device=device),
        spans,
        batch.span_weight,
        images=batch.images,
        image_rows=image_rows,
    )
    return alone, row, position


def call_text_model_varlen(
    backbone: Backbone, batch: MixedBatch, embeds: torch.Tensor, positions: torch.Tensor, **options: Any
) -> BaseModelOutput:
    """The stock text model on packed rows (B, N) by flash attention: all examples end to end in one row, with the
    offsets at which each begins (cu_seqlens)."""
    assert batch.document_lengths is not None
    lengths = [length for row in batch.document_lengths for length, _ in row]
    offsets = to_device(torch.tensor([0, *lengths]).cumsum(0).int(), embeds.device)
    places = np.stack((batch.layout.token_type != PAD).nonzero())
    row, at = to_device(torch.tensor(places), embeds.device)
    varlen = {"cu_seq_lens_q": offsets, "cu_seq_lens_k": offsets}
    varlen |= {"max_length_q": max(lengths), "max_length_k": max(lengths)}
    out = backbone.call_text_model(embeds[row, at][None], None, positions[:, None, row, at], **varlen, **options)

    def unflatten(states: torch.Tensor) -> torch.Tensor:
        return states.new_zeros(*batch.ids.shape, states.shape[-1]).index_put((row, at), states[0])

    hidden = out.hidden_states and tuple(map(unflatten, out.hidden_states))
    return BaseModelOutput(unflatten(out.last_hidden_state), hidden_states=hidden)
