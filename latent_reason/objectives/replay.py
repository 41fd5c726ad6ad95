"""How likely everything was that a rollout chose, computed in one parallel pass over prompt and generation."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from ..decoding.rollout import Rollout
from ..model.batch import IMAGE, LATENT, PAD, TEXT, shift_right
from ..model.reasoner import LatentReasoner
from .attention_masks import block_causal_mask
from .latent_policies import LatentPolicy
from .losses import in_chunks


class Replay(NamedTuple):
    """Log-probabilities of text tokens and of stop decisions (B, T), zero where nothing was chosen; of the actions
    (n, steps) that the n latents are made of, row by row; and the states (n, D) these were drawn in."""

    text: torch.Tensor
    stops: torch.Tensor
    latents: torch.Tensor
    states: torch.Tensor


def rollout_states(model: LatentReasoner, rollout: Rollout) -> torch.Tensor:
    """States (B, T, D) before every position of a rollout, from one parallel pass over prompt and generation."""
    prompt, backbone = rollout.prompt, model.backbone
    embeds = backbone.embed(rollout.ids)
    is_vector = rollout.token_type == LATENT
    if rollout.mixed is not None:
        is_vector = is_vector | rollout.mixed
    embeds = torch.where(is_vector[..., None], rollout.latent_embeds.to(embeds.dtype), embeds)
    embeds = torch.cat([model.prompt_embeddings(prompt), backbone.pad_extra(embeds)], 1)
    mask = torch.cat([prompt.mask, rollout.token_type != PAD], 1)
    if rollout.hides_images:
        mask = mask_without_images(rollout, mask, model.vocabulary.open)
    positions = torch.cat([backbone.position_ids(prompt), rollout.positions], -1)
    return shift_right(backbone.forward_text(embeds, mask, positions))[:, prompt.ids.shape[1] :]


def mask_without_images(rollout: Rollout, mask: torch.Tensor, opening: int) -> torch.Tensor:
    """(B, N, N) what each position attends to, of a rollout that ``hides_images`` and whose positions there are in
    ``mask`` (B, N): text after the first token ``opening`` of its row to no image, other opening tokens and latents to
    all."""
    opens = rollout.ids == opening
    hidden = (rollout.token_type == TEXT) & (opens.cumsum(1) > 0) & ~opens
    is_image = F.pad(rollout.prompt.token_type == IMAGE, (0, opens.shape[1]))
    hidden = F.pad(hidden, (mask.shape[1] - opens.shape[1], 0))
    return block_causal_mask(mask) & ~(hidden[:, :, None] & is_image[:, None])


def replay(
    model: LatentReasoner, rollout: Rollout, policy: LatentPolicy | None = None, temperature: float = 1.0
) -> Replay:
    """Score a rollout again, with gradients. ``policy`` is the one that drew its latents.

    Raises:
        ValueError: the rollout was not drawn by a policy, or its records are not those of its latents.
    """
    h = rollout_states(model, rollout)
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
    if rollout.policy_records is None or len(rollout.policy_records) != int(is_latent.sum()):
        count = "none" if rollout.policy_records is None else len(rollout.policy_records)
        raise ValueError(
            f"the rollout has {int(is_latent.sum())} latents (by row: {is_latent.sum(1).tolist()}) and records of "
            f"{count}. Replay the whole rollout that generate(latent_policy=...) returned."
        )
    assert model.head is not None  # it drew the latents
    return Replay(text, stops, policy.log_prob(model.head, states, rollout.policy_records), states)
