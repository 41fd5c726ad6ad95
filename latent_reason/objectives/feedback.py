"""Latents that are fed with the norm of token embeddings.

The states of a text model, and the tokens of a vision encoder, may be many times larger than the token embeddings that it
reads (GAP 2605.12374 measures 546 and 8.7 times). With ``norm_matched`` feedback, every latent that becomes an input is
multiplied by one number: the mean norm of token embeddings over the mean norm of latents, measured once before training.
One number for all keeps what latents say relative to each other, and can be divided out again to render them. The losses
of heads see latents without it. That it is one number, and what it is measured on, is our choice.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ..model.batch import TEXT, MixedBatch
from ..model.reasoner import LatentReasoner
from .forward import forward_batch
from .latent_inputs import head_noise
from .objective import Objective


def measures_states(model: LatentReasoner, objective: Objective) -> bool:
    """Whether the size of latents is that of states, so that the text model makes a pass to measure it: no target stands
    in the context, and nothing else says what the head draws."""
    if objective.latent_input == "blank":
        return False
    draws_targets = model.can_sketch and not model.head.in_hidden_space
    return not objective.uses_target(model) or not (objective.latent_input == "teacher" or draws_targets)


def fed_latents(model: LatentReasoner, objective: Objective, batch: MixedBatch) -> torch.Tensor:
    """(n, D) latents of a batch as the method feeds them.

    These are the targets where they stand in the context or are what the head draws, and the constants of blank spans.
    Otherwise they are what the head draws from the states of the text before the first latent of each row; a head that
    reads more than the state draws all latents of the batch, one after the other.
    """
    span, row, position, slot, grids = batch.latent_places()
    if objective.latent_input == "blank":
        return model.placeholder_latents(batch)[span, slot]
    if not measures_states(model, objective):
        assert model.target is not None  # it is used
        return model.latents_to_embeddings(model.target(batch)[span, slot])
    if model.head.needs_context:
        return objective.own_latent_states(model, batch, batch.positions)[1][span, slot]
    first = torch.full_like(batch.ids[:, 0], batch.ids.shape[1]).scatter_reduce(0, row, position, "amin")
    before = torch.arange(batch.ids.shape[1], device=first.device) < first[:, None]
    states = forward_batch(model.backbone, batch, model.embed_batch(batch), batch.positions)
    states = states[before & (batch.token_type == TEXT)]
    grids, slot = grids[:1].expand(len(states), -1), slot[:1].expand(len(states))
    return model.sample_latents(states, grids, slot, head_noise(model, len(states)))


@torch.no_grad()
def match_norms(model: LatentReasoner, objective: Objective, batches: Iterable[MixedBatch]) -> float:
    """Store, in place of an earlier one, the number that gives the latents of training batches the mean norm of the
    embeddings of their text. Returns it.

    Raises:
        ValueError: there are no latents, or they are zero or not finite.
    """
    training = model.training
    model.eval().reserve_gain(None)
    sums = torch.zeros(2, dtype=torch.float64, device=model.device)
    counts = [0, 0]
    for batch in batches:
        embeds = model.backbone.embed(batch.ids[batch.token_type == TEXT])
        parts = [embeds, fed_latents(model, objective, batch) if len(batch.spans) else embeds[:0]]
        sums += torch.stack([part.double().norm(dim=-1).sum() for part in parts])
        counts = [count + len(part) for count, part in zip(counts, parts, strict=True)]
    model.train(training)
    text, latents = (total / max(count, 1) for total, count in zip(sums.tolist(), counts, strict=True))
    if not (0 < latents < float("inf") and 0 < text < float("inf")):
        raise ValueError(
            f"method.feedback=norm_matched: {counts[1]:,} latents of the training data have a mean norm of {latents:g}, and "
            f"{counts[0]:,} text tokens of {text:g}, so no number makes them equal. Set raw."
        )
    model.reserve_gain("norm_matched")
    assert model.feedback_gain is not None  # it was reserved
    model.feedback_gain = model.feedback_gain.new_full((), text / latents, device=model.device)
    return text / latents
