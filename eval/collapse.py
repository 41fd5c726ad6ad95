"""Diagnostics of latents: norm, similarity across items, effective rank, and causes of stops.

Latents that are nearly equal for all items cannot encode an item, whatever the accuracy is (arXiv 2605.18445 measured
cosines of 0.8 to 0.98 in published models). The latents of the true sketches, where they exist, are the reference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from latent_reason import methods
from latent_reason.decoding.items import Result
from latent_reason.trace import Trace

STOP_CAUSES = ("count", "close", "cap", "budget")
MAX_COSINE = 0.9  # mean cosine across items above which latents are collapsed; at least halfway from the true one to 1
LEAST_ITEMS = 10  # fewest items whose latents are compared for a warning: 45 pairs a slot

Place = tuple[int, int, int]  # index of the sketch in its item, and grid: sketches of one item are similar
Spans = dict[tuple[int, Place], torch.Tensor]  # (item, place) -> latents (K, D)


def group_by_slot(spans: Spans) -> list[torch.Tensor]:
    """Latents of the same slot and place: (n, D) each. Slots that occur once are left out."""
    slots: dict[tuple, list[torch.Tensor]] = {}
    for (_, place), latents in spans.items():
        for number, z in enumerate(latents.float()):
            slots.setdefault((place, number), []).append(z)
    return [torch.stack(zs) for zs in slots.values() if len(zs) > 1]


def mean_cosine(slots: Sequence[torch.Tensor]) -> float:
    """Mean cosine of the latents of two different items at the same slot."""
    total = pairs = 0.0
    for z in slots:
        unit, n = F.normalize(z, dim=-1), len(z)
        total += float(unit.sum(0).square().sum() - unit.square().sum())
        pairs += n * (n - 1)
    return total / max(pairs, 1)


def effective_rank(slots: Sequence[torch.Tensor]) -> float:
    """exp of the entropy of the normalized singular values (Roy & Vetterli 2007) of latents centered per slot."""
    values = torch.linalg.svdvals(torch.cat([z - z.mean(0) for z in slots]))
    p = values / values.sum().clamp_min(1e-12)
    return float(torch.exp(-(p * p.clamp_min(1e-12).log()).sum()))


def neighbor_cosine(spans: Spans) -> float:
    """Mean cosine of neighboring latents in a span."""
    pairs = [F.cosine_similarity(z[1:].float(), z[:-1].float(), dim=-1) for z in spans.values() if len(z) > 1]
    return float(torch.cat(pairs).mean()) if pairs else 0.0


def retrieval(own: Spans, true: Spans) -> tuple[float, float] | None:
    """(share, chance) of sketches whose nearest true sketch at the same place belongs to the same item.

    The measure is the cosine after subtraction of the mean of each slot. None if no place has two items.
    """
    hits, chance = [], []
    for place in {p for _, p in own}:
        items = [i for i, p in own if p == place and (i, p) in true and len(own[i, p]) == len(true[i, p])]
        if len(items) < 2:
            continue
        golds = torch.stack([true[i, place].float() for i in items])
        latents = torch.stack([own[i, place].float() for i in items]) - golds.mean(0)
        latents, golds = (F.normalize(z.flatten(1), dim=-1) for z in (latents, golds - golds.mean(0)))
        nearest = (latents @ golds.T).argmax(1)
        hits += (nearest == torch.arange(len(items))).tolist()
        chance += [1 / len(items)] * len(items)
    return (sum(hits) / len(hits), sum(chance) / len(chance)) if hits else None


@torch.no_grad()
def true_spans(reasoner, traces) -> Spans:
    """The gold sketches of traces."""
    batch = methods.objective_of(reasoner).collate(reasoner, traces).to(reasoner.device)
    if not len(batch.spans):
        return {}
    z = reasoner.latents_to_embeddings(reasoner.target(batch))
    num_sketches: Counter[int] = Counter()
    spans = {}
    for i, (row, _, h, w) in enumerate(batch.spans.tolist()):
        spans[row, (num_sketches[row], h, w)] = z[i, : h * w].cpu()
        num_sketches[row] += 1
    return spans


class DrawnSpan(NamedTuple):
    """A span that was decoded: its grid, why it closed, and its latents (K, D)."""

    grid: tuple[int, int]
    cause: str
    latents: torch.Tensor


def drawn_spans(result: Result) -> list[DrawnSpan]:
    """The spans of one decoded item."""
    rollout = result.rollout
    return [DrawnSpan(s.grid, s.cause, rollout.latents(s).cpu()) for s in rollout.spans_of(result.row)]


def latent_diagnostics(reasoner, results: Sequence[Result]) -> dict[str, float]:
    """Diagnostics of the latents of ``results``, with their gold traces as reference: see :func:`diagnose`."""
    return diagnose(reasoner, [drawn_spans(r) for r in results], [r.trace for r in results])


def diagnose(reasoner, drawn: Sequence[Sequence[DrawnSpan]], traces: Sequence[Trace]) -> dict[str, float]:
    """Diagnostics of the spans of each item, with the gold trace of each as reference.

    Returns:
        ``latent_rms``: root mean square relative to the true latents, or to the token embeddings without these.
        ``latent_items``: the number of items whose latents are compared with those of others.
        ``latent_cosine``: across items; ``latent_along``: of neighbors in a span; ``latent_rank``: effective rank.
        ``true_cosine``, ``true_rank``: the same of the true latents.
        ``latent_error``: squared distance to the true latents of the same sketch, over their variance around the mean
        of each slot, so that 1 is as far as that mean.
        ``latent_retrieval``, ``retrieval_chance``: how often a sketch is nearest to its own true sketch.
        ``stop_*``: share of each cause of a stop.
    """
    own = {
        (i, (number, *s.grid)): s.latents
        for i, spans in enumerate(drawn)
        for number, s in enumerate(spans)
        if len(s.latents)
    }
    if not (slots := group_by_slot(own)):
        return {}
    num_at = Counter(place for _, place in own)
    figures = {
        "latent_items": len({item for item, place in own if num_at[place] > 1}),
        "latent_cosine": mean_cosine(slots),
        "latent_along": neighbor_cosine(own),
        "latent_rank": effective_rank(slots),
    }
    true = true_spans(reasoner, traces) if reasoner.is_renderable else {}
    reference = torch.cat([*true.values()]) if true else reasoner.backbone.model.get_input_embeddings().weight
    size = torch.cat([*own.values()]).float().square().mean().sqrt()
    figures["latent_rms"] = float(size / reference.float().square().mean().sqrt().cpu())
    if true_slots := group_by_slot(true):
        figures |= {"true_cosine": mean_cosine(true_slots), "true_rank": effective_rank(true_slots)}
        spread = torch.cat([(z - z.mean(0)).square().mean(-1) for z in true_slots]).mean()
        pairs = [(z, true[key]) for key, z in own.items() if key in true and len(true[key]) == len(z)]
        if pairs and spread > 0:
            away = torch.cat([(z.float() - gold.float()).square().mean(-1) for z, gold in pairs])
            figures["latent_error"] = float(away.mean() / spread)
    if true and (hits := retrieval(own, true)):
        figures |= {"latent_retrieval": hits[0], "retrieval_chance": hits[1]}
    causes = Counter(s.cause for spans in drawn for s in spans)
    return figures | {f"stop_{c}": causes[c] / sum(causes.values()) for c in STOP_CAUSES if causes[c]}


def collapse_warning(figures: dict[str, float]) -> str | None:
    """A warning if latents collapsed or have another scale than their reference, else None. ``figures`` are those of
    :func:`diagnose`."""
    limit = max(MAX_COSINE, (1 + figures.get("true_cosine", 0.0)) / 2)
    if figures.get("latent_cosine", 0.0) > limit:
        if figures["latent_items"] < LEAST_ITEMS:
            return (
                f"latents of different items have a mean cosine of {figures['latent_cosine']:.2f}, but only "
                f"{figures['latent_items']} items were compared and {LEAST_ITEMS} are needed to say whether they collapse."
            )
        return (
            f"latents collapse: those of different items have a mean cosine of {figures['latent_cosine']:.2f} (above "
            f"{limit:.2f}), so they hardly differ between items. Probe the model before you rely on its latents."
        )
    if not 0.2 <= figures.get("latent_rms", 1.0) <= 5:
        return (
            f"latents have {figures['latent_rms']:.2f} times the size of their reference (expected: 0.2 to 5): the "
            "backbone may ignore them. Probe the model before you rely on its latents."
        )
    return None
