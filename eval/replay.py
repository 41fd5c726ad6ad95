"""Protocol "replay": all words are kept as they were written, only latents change, and the answer's distribution is
read where the answer begins. It shows an effect that greedy decoding hides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from latent_reason.decoding.items import Result
from latent_reason.decoding.rollout import Rollout
from latent_reason.model.batch import LATENT, TEXT
from latent_reason.objectives.replay import rollout_states


@torch.no_grad()
def answer_kl(reasoner, results: Sequence[Result], intervene: Callable[[Sequence], Callable]) -> list[float]:
    """KL in nats of the answer's first token, from latents as drawn to latents replaced, with all words kept
    (protocol "replay"); of the items that drew a sketch and boxed an answer. ``intervene`` gets the items of a batch in
    the order of its rows.

    Raises:
        ValueError: some rows of a batch have no result.
    """
    found = []
    for rollout, group in by_rollout(results):
        swap, numbers, slots = intervene([r.item for r in group]), *places(rollout)
        latent = rollout.token_type == LATENT
        rows = latent.nonzero()[:, 0]
        vectors = swap(rows, numbers[latent], slots[latent], rollout.latent_embeds[latent], None)
        other = replace(rollout, latent_embeds=rollout.latent_embeds.masked_scatter(latent[..., None], vectors))
        where = {r.row: at for r in group if r.latents and (at := answer_at(rollout, r.row, reasoner)) is not None}
        if not where:
            continue
        index = torch.tensor(list(where.items()), device=latent.device).T
        p, q = (
            reasoner.backbone.logits(rollout_states(reasoner, x)[index[0], index[1]]).float().log_softmax(-1)
            for x in (rollout, other)
        )
        found += (p.exp() * (p - q)).sum(-1).tolist()
    return found


def by_rollout(results: Sequence[Result]) -> list[tuple[Rollout, list[Result]]]:
    """Each rollout with its results in the order of its rows, which is not the order of the items.

    Raises:
        ValueError: some rows of a rollout have no result, so the latents of its rows cannot be replaced.
    """
    groups: dict[int, list[Result]] = {}
    for r in results:
        groups.setdefault(id(r.rollout), []).append(r)
    ordered = [sorted(group, key=lambda r: r.row) for group in groups.values()]
    for group in ordered:
        if len(group) != len(group[0].rollout.ids):
            raise ValueError(
                f"{len(group)} results of a batch of {len(group[0].rollout.ids)}: replay takes whole batches. Decode the "
                "items to replay on their own."
            )
    return [(group[0].rollout, group) for group in ordered]


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
    words = (rollout.token_type[row] == TEXT).nonzero()[:, 0].tolist()
    for n in range(1, len(words)):
        if reasoner.vocabulary.decode(rollout.ids[row, words[:n]].tolist()).endswith("\\boxed{"):
            return words[n]
    return None
