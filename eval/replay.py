"""Protocol "replay": all words are kept as they were written, only latents change, and the answer's distribution is
read where the answer begins. It shows an effect that greedy decoding hides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from latent_reason.decoding.engine import Rollout
from latent_reason.decoding.items import Result
from latent_reason.model.batch import LATENT, TEXT


@torch.no_grad()
def answer_kl(reasoner, results: Sequence[Result], intervene: Callable[[Sequence], Callable]) -> list[float]:
    """KL in nats of the answer's first token, from latents as drawn to latents replaced, with all words kept
    (protocol "replay"); of the items that drew a sketch and boxed an answer."""
    found = []
    for rollout, group in by_rollout(results):
        swap, numbers, slots = intervene([r.item for r in group]), *places(rollout)
        latent = rollout.kind == LATENT
        rows = latent.nonzero()[:, 0]
        vectors = swap(rows, numbers[latent], slots[latent], rollout.vectors[latent], None)
        other = replace(rollout, vectors=rollout.vectors.masked_scatter(latent[..., None], vectors))
        where = {r.row: at for r in group if r.latents and (at := answer_at(rollout, r.row, reasoner)) is not None}
        if not where:
            continue
        index = torch.tensor(list(where.items()), device=latent.device).T
        p, q = (
            reasoner.backbone.logits(reasoner.states_of(x)[index[0], index[1]]).float().log_softmax(-1)
            for x in (rollout, other)
        )
        found += (p.exp() * (p - q)).sum(-1).tolist()
    return found


def by_rollout(results: Sequence[Result]) -> list[tuple[Rollout, list[Result]]]:
    """Results of one batch together, with its rollout."""
    groups: dict[int, list[Result]] = {}
    for r in results:
        groups.setdefault(id(r.rollout), []).append(r)
    return [(group[0].rollout, group) for group in groups.values()]


def places(rollout: Rollout) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T) which span of its row, and which slot of it, each position holds."""
    number, slot = torch.zeros(2, *rollout.ids.shape, dtype=torch.long, device=rollout.ids.device)
    for row in range(len(rollout.ids)):
        for n, span in enumerate(rollout.spans_of(row)):
            number[row, span.start : span.start + span.length] = n
            slot[row, span.start : span.start + span.length] = torch.arange(span.length, device=slot.device)
    return number, slot


def answer_at(rollout: Rollout, row: int, reasoner) -> int | None:
    """Where the first token of the boxed answer stands."""
    words = (rollout.kind[row] == TEXT).nonzero()[:, 0].tolist()
    for n in range(1, len(words)):
        if reasoner.vocabulary.text(rollout.ids[row, words[:n]].tolist()).endswith("\\boxed{"):
            return words[n]
    return None
