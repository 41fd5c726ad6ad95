"""How likely everything was that a rollout chose, computed in one parallel pass over prompt and generation."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..decoding.rollout import Rollout
from ..model.batch import LATENT
from ..model.reasoner import LatentReasoner
from .latent_policies import LatentPolicy, Pathwise
from .losses import in_chunks
from .rollout_states import path_states, rollout_states


class Replay(NamedTuple):
    """Log-probabilities of text tokens and of stop decisions (B, T), zero where nothing was chosen; of the actions
    (n, steps) that the n latents are made of, row by row; and the states (n, D) these were drawn in."""

    text: torch.Tensor
    stops: torch.Tensor
    latents: torch.Tensor
    states: torch.Tensor


def replay(
    model: LatentReasoner, rollout: Rollout, policy: LatentPolicy | None = None, temperature: float = 1.0
) -> Replay:
    """Score a rollout again, with gradients. ``policy`` is the one that drew its latents.

    Raises:
        ValueError: the rollout was not drawn by a policy, or its records are not those of its latents.
    """
    if policy is not None and policy.has_record:
        check_records(rollout)
    h = path_states(model, rollout, policy) if isinstance(policy, Pathwise) else rollout_states(model, rollout)
    text, stops = torch.zeros(2, *rollout.ids.shape, dtype=torch.float32, device=h.device)
    chosen, backbone = rollout.text_decisions, model.backbone

    def token_log_prob(h, ids, open_allowed):
        table = (model.mask_forbidden_tokens(backbone.logits(h), open_allowed) / temperature).log_softmax(-1)
        return table.gather(-1, ids[:, None])[:, 0]

    rows = h[chosen], rollout.ids[chosen], rollout.open_allowed[chosen]
    text = text.masked_scatter(chosen, in_chunks(token_log_prob, backbone.vocab_size, *rows))
    decided = rollout.stop_decisions
    if decided.any():
        scores = in_chunks(model.stop_log_probs, backbone.vocab_size, h[decided])
        scores = (scores / temperature).log_softmax(-1)
        continued = rollout.token_type[decided] == LATENT
        stops = stops.masked_scatter(decided, torch.where(continued, scores[:, 0], scores[:, 1]))
    is_latent = rollout.token_type == LATENT
    states = h[is_latent] if model.head is None else model.head.cast_inputs(h[is_latent], None)[0]
    if policy is None or not policy.has_log_prob or not is_latent.any():
        return Replay(text, stops, text.new_zeros(0, policy.steps if policy else 0), states)
    assert model.head is not None  # it drew the latents
    return Replay(text, stops, policy.log_prob(model.head, states, rollout.policy_records), states)


def check_records(rollout: Rollout) -> None:
    """Raises ValueError if a rollout does not hold a record of each of its latents."""
    is_latent, records = rollout.token_type == LATENT, rollout.policy_records
    if (0 if records is None else len(records)) != int(is_latent.sum()):
        raise ValueError(
            f"the rollout has {int(is_latent.sum())} latents (by row: {is_latent.sum(1).tolist()}) and records of "
            f"{'none' if records is None else len(records)}. Replay the whole rollout that generate(latent_policy=...) "
            "returned."
        )
