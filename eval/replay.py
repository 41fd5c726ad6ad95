"""Protocol "replay": the written text is kept and only latents are replaced. The distribution of the answer's first
token shows effects that greedy decoding hides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from latent_reason.decoding.items import Result
from latent_reason.decoding.rollout import Rollout
from latent_reason.model.batch import LATENT, TEXT
from latent_reason.objectives.replay import rollout_states


@torch.no_grad()
def answer_kl(reasoner, results: Sequence[Result], make_hook: Callable[[Sequence], Callable]) -> list[float]:
    """KL divergence in nats of the answer's first token, from the original latents to replaced latents with the same
    text. One value per item that has a sketch and a boxed answer."""
    divergences = []
    for rollout, group in group_by_rollout(results):
        hook, numbers, slots = make_hook([r.item for r in group]), *span_and_slot(rollout)
        latent = rollout.token_type == LATENT
        rows = latent.nonzero()[:, 0]
        vectors = hook(rows, numbers[latent], slots[latent], rollout.latent_embeds[latent], None)
        replaced = replace(rollout, latent_embeds=rollout.latent_embeds.masked_scatter(latent[..., None], vectors))
        starts = {
            r.row: start for r in group if r.latents and (start := answer_start(rollout, r.row, reasoner)) is not None
        }
        if not starts:
            continue
        index = torch.tensor(list(starts.items()), device=latent.device).T
        p, q = (
            reasoner.backbone.logits(rollout_states(reasoner, x)[index[0], index[1]]).float().log_softmax(-1)
            for x in (rollout, replaced)
        )
        divergences += (p.exp() * (p - q)).sum(-1).tolist()
    return divergences


def group_by_rollout(results: Sequence[Result]) -> list[tuple[Rollout, list[Result]]]:
    """Results of each batch with their common rollout."""
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


def span_and_slot(rollout: Rollout) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T) index of the span within its row, and slot within the span, of each position."""
    number, slot = torch.zeros(2, *rollout.ids.shape, dtype=torch.long, device=rollout.ids.device)
    for row in range(len(rollout.ids)):
        for n, span in enumerate(rollout.spans_of(row)):
            number[row, span.start : span.start + span.length] = n
            slot[row, span.start : span.start + span.length] = torch.arange(span.length, device=slot.device)
    return number, slot


def answer_start(rollout: Rollout, row: int, reasoner) -> int | None:
    """The position of the first token of the boxed answer; None without one."""
    text_positions = (rollout.token_type[row] == TEXT).nonzero()[:, 0].tolist()
    for n in range(1, len(text_positions)):
        if reasoner.vocabulary.decode(rollout.ids[row, text_positions[:n]].tolist()).endswith("\\boxed{"):
            return text_positions[n]
    return None
