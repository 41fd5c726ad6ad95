"""Are drawn latents alive? Their norm, how alike they are across items, how many directions they use, why spans ended.

Latents that are nearly the same for every item cannot carry what an item is about, whatever the accuracy says
(cosines of 0.8 to 0.98 were measured in published models, 2605.18445). The latents of the true sketches, where there
are any, say how alike they may be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from latent_reason import methods
from latent_reason.decoding.items import Result

CAUSES = ("count", "close", "cap", "budget")
ALIKE = 0.9  # mean cosine across items from which latents count as collapsed, or half-way from the true ones' to 1


Place = tuple[int, int, int]  # which sketch of its item, and its grid: one item's sketches are alike
Spans = dict[tuple[int, Place], torch.Tensor]  # (item, place) -> latents (K, D)


def by_slot(spans: Spans) -> list[torch.Tensor]:
    """Latents of the same slot of the same place: (n, D) each. Slots seen once are left out."""
    slots: dict[tuple, list[torch.Tensor]] = {}
    for (_, place), latents in spans.items():
        for number, z in enumerate(latents.float()):
            slots.setdefault((place, number), []).append(z)
    return [torch.stack(zs) for zs in slots.values() if len(zs) > 1]


def likeness(slots: Sequence[torch.Tensor]) -> float:
    """Mean cosine of two different items' latents at the same slot."""
    total = pairs = 0.0
    for z in slots:
        unit, n = F.normalize(z, dim=-1), len(z)
        total += float(unit.sum(0).square().sum() - unit.square().sum())
        pairs += n * (n - 1)
    return total / max(pairs, 1)


def effective_rank(slots: Sequence[torch.Tensor]) -> float:
    """exp of the entropy of the normalised singular values (Roy & Vetterli 2007) of latents centred slot by slot."""
    values = torch.linalg.svdvals(torch.cat([z - z.mean(0) for z in slots]))
    p = values / values.sum().clamp_min(1e-12)
    return float(torch.exp(-(p * p.clamp_min(1e-12).log()).sum()))


def along(spans: Spans) -> float:
    """Mean cosine of neighbours in a span."""
    pairs = [F.cosine_similarity(z[1:].float(), z[:-1].float(), dim=-1) for z in spans.values() if len(z) > 1]
    return float(torch.cat(pairs).mean()) if pairs else 0.0


def retrieval(drawn: Spans, true: Spans) -> tuple[float, float] | None:
    """(share, chance) of drawn sketches whose nearest true sketch of their place, by cosine after the mean of each slot
    is taken away, is that of their own item. None where no two items meet."""
    hits, chance = [], []
    for place in {p for _, p in drawn}:
        items = [i for i, p in drawn if p == place and (i, p) in true and len(drawn[i, p]) == len(true[i, p])]
        if len(items) < 2:
            continue
        golds = torch.stack([true[i, place].float() for i in items])
        own = torch.stack([drawn[i, place].float() for i in items]) - golds.mean(0)
        own, golds = (F.normalize(z.flatten(1), dim=-1) for z in (own, golds - golds.mean(0)))
        nearest = (own @ golds.T).argmax(1)
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
    seen: Counter[int] = Counter()
    found = {}
    for i, (row, _, h, w) in enumerate(batch.spans.tolist()):
        found[row, (seen[row], h, w)] = z[i, : h * w].cpu()
        seen[row] += 1
    return found


def health(reasoner, results: Sequence[Result]) -> dict[str, float]:
    """Figures of the latents of results and of their gold traces: ``latent_rms`` (over that of the true latents, or of
    the token embeddings), ``latent_cosine`` across items, ``latent_along`` the span, ``latent_rank``, the first two of
    the true latents, how often a drawn sketch finds its own true one (``latent_retrieval``, beside its chance), and the
    share of each cause of a stop."""
    drawn = {
        (i, (number, *s.grid)): r.rollout.latents(s).cpu()
        for i, r in enumerate(results)
        for number, s in enumerate(r.rollout.spans_of(r.row))
        if s.length
    }
    if not (slots := by_slot(drawn)):
        return {}
    found = {"latent_cosine": likeness(slots), "latent_along": along(drawn), "latent_rank": effective_rank(slots)}
    true = true_spans(reasoner, [r.trace for r in results]) if reasoner.is_renderable else {}
    reference = torch.cat([*true.values()]) if true else reasoner.backbone.model.get_input_embeddings().weight
    size = torch.cat([*drawn.values()]).float().square().mean().sqrt()
    found["latent_rms"] = float(size / reference.float().square().mean().sqrt().cpu())
    if true_slots := by_slot(true):
        found |= {"true_cosine": likeness(true_slots), "true_rank": effective_rank(true_slots)}
    if true and (hits := retrieval(drawn, true)):
        found |= {"latent_retrieval": hits[0], "retrieval_chance": hits[1]}
    causes = Counter(s.cause for r in results for s in r.rollout.spans_of(r.row))
    return found | {f"stop_{c}": causes[c] / sum(causes.values()) for c in CAUSES if causes[c]}


def alarm(found: dict[str, float]) -> str | None:
    """A sentence where latents collapsed or left the scale of what they stand for, else None."""
    limit = max(ALIKE, (1 + found.get("true_cosine", 0.0)) / 2)
    if found.get("latent_cosine", 0.0) > limit:
        return (
            f"latents collapse: those of different items have a mean cosine of {found['latent_cosine']:.2f} (above "
            f"{limit:.2f}), so they can tell little apart. Probe the model before trusting its latents."
        )
    if not 0.2 <= found.get("latent_rms", 1.0) <= 5:
        return (
            f"latents have {found['latent_rms']:.2f} times the size of what they stand for (0.2 to 5 is sound): "
            "the backbone may not read them."
        )
    return None
