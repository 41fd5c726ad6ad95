"""Measures of what the sketches of a rollout contain and what they do to its answer: a number from 0 to 1 for each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from eval.attention import attention_weights
from latent_reason.decoding.rollout import Rollout
from latent_reason.model.batch import LATENT, TEXT
from latent_reason.objectives.replay import replay
from latent_reason.objectives.rollout_states import rollout_inputs
from latent_reason.tasks import Item
from latent_reason.visualization.storyboard import decode_sketches, split_text

from .reward_context import RewardContext

ROWS = 8  # of one pass that keeps the attention of all layers


def judge_sketches(name: str, context: RewardContext, rollout: Rollout, items: Sequence[Item]) -> list[list[dict]]:
    """What the task says of every rendered sketch of each row (:meth:`.Task.sketch_report`), for the measure ``name``.

    Raises:
        ValueError: sketches cannot be decoded.
    """
    if context.decoder is None or not context.reasoner.is_renderable:
        raise ValueError(
            f"{name} needs decoded sketches. Start from a checkpoint with a sketch decoder and a method whose latents can "
            "be decoded to images."
        )
    judged = list[list[dict]]()
    for row, item in enumerate(items):
        if not rollout.spans_of(row):
            judged.append([])
            continue
        images = decode_sketches(context.reasoner, context.decoder, rollout, row, item.images[-1])
        texts = split_text(rollout, row, context.reasoner.vocabulary)
        judged.append(context.task.sketch_report(images, item, texts)["sketches"])
    return judged


def sketch_match(context: RewardContext, rollout: Rollout, items: Sequence[Item]) -> list[float]:
    """Share of the sketches that show the state that the text describes; 0 without a sketch. Raises as
    :func:`judge_sketches`."""
    judged = judge_sketches("sketch_match", context, rollout, items)
    return [sum(bool(s["equal"]) for s in sketches) / max(len(sketches), 1) for sketches in judged]


def sketch_right(context: RewardContext, rollout: Rollout, items: Sequence[Item]) -> list[float]:
    """Share of the sketches whose parsed rendering shows the true state: that of the item at this sketch, or, where
    several ways are right, the one to which a legal step of the text leads. 0 without a sketch. Raises as
    :func:`judge_sketches`."""
    judged = judge_sketches("sketch_right", context, rollout, items)
    return [
        sum(bool(s["gold"] or (s["legal"] and s["equal"])) for s in sketches) / max(len(sketches), 1)
        for sketches in judged
    ]


@torch.no_grad()
def sketch_useful(context: RewardContext, rollout: Rollout, items: Sequence[Item]) -> list[float]:
    """How much less likely the text after the last sketch would be under the latents of another item: 1 - p(text |
    foreign latents) / p(text | own latents), and 0 where that is negative or the row has no sketch. It takes two passes.
    A span gets the latents of the span of the same number in the next row of another item that has one, else what the
    head's zero stands for."""
    foreign = replace(rollout, latent_embeds=foreign_latents(context.reasoner, rollout, items))
    own, other = (replay(context.reasoner, x).text for x in (rollout, foreign))
    return [
        0.0 if start is None else float(1 - (other[row, start:] - own[row, start:]).sum().clamp_max(0).exp())
        for row, start in enumerate(ends_of_spans(rollout, len(items)))
    ]


def ends_of_spans(rollout: Rollout, rows: int) -> list[int | None]:
    """The position after the last latent of each row; None for rows without a sketch."""
    ends: list[int | None] = [None] * rows
    for span in rollout.spans:
        if span.length:
            ends[span.row] = max(ends[span.row] or 0, span.start + span.length)
    return ends


def foreign_latents(reasoner, rollout: Rollout, items: Sequence[Item]) -> torch.Tensor:
    """(B, T, D) the latents of the rollout, those of each span replaced by latents of another item."""
    spans = [[span for span in rollout.spans_of(row) if span.length] for row in range(len(items))]
    out = rollout.latent_embeds.clone()
    for row, own in enumerate(spans):
        for number, span in enumerate(own):
            others = (other for i in range(1, len(items)) if items[other := (row + i) % len(items)].id != items[row].id)
            donor = next((spans[other][number] for other in others if len(spans[other]) > number), None)
            latents = mean_span(reasoner, span) if donor is None else rollout.latents(donor)
            slots = torch.arange(span.length, device=out.device).clamp_max(len(latents) - 1)
            out[row, span.start : span.start + span.length] = latents[slots].to(out.dtype)
    return out


def mean_span(reasoner, span) -> torch.Tensor:
    """(K, D) latents that say nothing: what the head's zero stands for (the mean of each slot where targets are
    standardized), or zeros in the space of the states."""
    device = reasoner.device
    means = reasoner.latent_means(torch.tensor([span.grid], device=device), span.length)
    if means is None:
        return torch.zeros(span.length, reasoner.backbone.width, device=device)
    return reasoner.latents_to_embeddings(means[0])


@torch.no_grad()
def latent_attention(context: RewardContext, rollout: Rollout, items: Sequence[Item]) -> list[float]:
    """Attention of the text after a sketch to the latents before it, over that of the reference model on the same
    rollout, at most 1; mean over heads and the middle third of the layers (after 2605.18641; the formula is ours). 0
    without a sketch.

    Raises:
        ValueError: there is no reference model.
    """
    if context.reference is None:
        raise ValueError("latent_attention needs the reference model (the model at the start of training).")
    own, first = (attention_to_latents(model, rollout, len(items)) for model in (context.reasoner, context.reference))
    return (own / first.clamp_min(1e-6)).clamp_max(1.0).tolist()


def attention_to_latents(reasoner, rollout: Rollout, rows: int) -> torch.Tensor:
    """(B,) the mean attention of text after the first sketch of a row to all latents before it."""
    embeds, mask, positions = rollout_inputs(reasoner, rollout)
    start, found = rollout.prompt.ids.shape[1], []
    kinds = torch.cat([torch.zeros_like(rollout.prompt.token_type), rollout.token_type], 1)
    is_latent = kinds == LATENT
    asks = (kinds == TEXT) & (is_latent.cumsum(1) > 0)
    for first in range(0, rows, ROWS):
        part = slice(first, first + ROWS)
        table = attention_weights(reasoner.backbone, embeds[part], mask[part], positions[:, part])
        third = len(table) // 3
        table = table[third : max(len(table) - third, third + 1)].mean(0)  # (rows, N, N)
        mass = (table * is_latent[part, None]).sum(-1) * asks[part]
        found.append(mass[:, start:].sum(1) / asks[part].sum(1).clamp_min(1))
    return torch.cat(found)
