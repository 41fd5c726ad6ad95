"""Protocol "replay": the written text is kept and only latents are replaced. The distribution of the answer's first
token shows effects that greedy decoding hides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from latent_reason.decoding.items import Result
from latent_reason.decoding.rollout import Rollout, join_rollouts
from latent_reason.model.batch import LATENT, TEXT
from latent_reason.objectives.rollout_states import rollout_states

BATCH_SIZE = 32  # rows of one parallel pass


@torch.no_grad()
def answer_kl(reasoner, results: Sequence[Result], make_hook: Callable[[Sequence], Callable]) -> list[float]:
    """KL divergence in nats of the answer's first token, from the original latents to replaced latents with the same
    text. One value per item that has a sketch and a boxed answer. ``make_hook`` gets the items of a batch in the order
    of its rows.
    """
    divergences = []
    for first in range(0, len(results), BATCH_SIZE):
        group = results[first : first + BATCH_SIZE]
        rollout = join_results(reasoner, group)
        hook, numbers, slots = make_hook([r.item for r in group]), *span_and_slot(rollout)
        latent = rollout.token_type == LATENT
        rows = latent.nonzero()[:, 0]
        vectors = hook(rows, numbers[latent], slots[latent], rollout.latent_embeds[latent], None)
        replaced = replace(rollout, latent_embeds=rollout.latent_embeds.masked_scatter(latent[..., None], vectors))
        starts = {
            row: start
            for row, r in enumerate(group)
            if r.latents and (start := answer_start(rollout, row, reasoner)) is not None
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


def join_results(reasoner, results: Sequence[Result]) -> Rollout:
    """The rows of these results as one rollout, in their order."""
    prompt = reasoner.processor([r.trace for r in results], generate=True).to(reasoner.device)
    return join_rollouts([(r.rollout, r.row) for r in results], prompt)


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
