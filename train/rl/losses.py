"""Losses of reinforcement learning: the policy loss of text, the loss of latents, and penalties.

Shapes: R rollouts, T positions, n latents of all rollouts together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from latent_reason.model.batch import LATENT
from latent_reason.objectives import latent_policies, policy_gradient
from latent_reason.objectives.latent_policies import LatentPolicy
from latent_reason.objectives.policy_gradient import PolicyObjective, Surrogate
from latent_reason.objectives.replay import replay

from ..config import RLConfig
from . import perturbations
from .rollouts import Experience


@dataclass(frozen=True)
class LossContext:
    """What the losses of one update need."""

    reasoner: torch.nn.Module
    reference: torch.nn.Module | None  # the model at the start of training
    policy: LatentPolicy | None
    objective: PolicyObjective
    rl: RLConfig
    latent_options: dict  # options of `generate` that the latents were sampled with
    progress: float  # 0 to 1
    seed: list[int]  # of perturbations

    @property
    def steps(self) -> int:
        """Actions of one latent."""
        return self.policy.steps if self.policy is not None else 0


def rollout_loss(context: LossContext, experience: Experience) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss of rollouts (scalar), and its parts as they are logged."""
    rl = context.rl
    new = context.reasoner(replay, experience.rollout, context.policy, rl.temperature)
    log_probs = new.text + new.stops
    old = log_probs.detach() if experience.old_log_probs is None else experience.old_log_probs
    text = policy_gradient.surrogate(
        context.objective, log_probs, old, experience.advantages, experience.actions, experience.weights
    )
    parts = {
        "train/policy": text.loss,
        "clip_ratio/low_mean": text.low,
        "clip_ratio/high_mean": text.high,
        "clip_ratio/low_min": text.low,
        "clip_ratio/high_max": text.high,
        "clip_ratio/region_mean": text.low + text.high,
        "ratio/text_mean": text.ratio_mean,
        "ratio/text_max": text.ratio_max,
    }
    if experience.old_log_probs is None:  # the policy has not changed since the rollouts
        sampled = experience.rollout.sampled_log_prob
        parts["replay/max_logp_gap"] = ((log_probs - sampled).abs() * experience.actions).max()
    loss = text.loss
    if rl.perturbations:
        perturbation_parts = perturbation_loss(context, experience, new.text)
        parts, loss = parts | perturbation_parts, loss + perturbation_parts["train/views"]
    if context.steps and len(new.latents):
        latent = latent_loss(context, experience, new.latents)
        parts |= {
            "train/latent": latent.loss,
            "clip_ratio/latent": latent.low + latent.high,
            "ratio/latent_mean": latent.ratio_mean,
            "ratio/latent_max": latent.ratio_max,
        }
        loss = loss + rl.latent_weight * latent.loss
    if context.reference is not None:
        with torch.no_grad():
            reference = replay(context.reference, experience.rollout, None, rl.temperature)
        kl = (policy_gradient.distance(log_probs, reference.text + reference.stops) * experience.weights).sum()
        parts["kl"], loss = kl, loss + rl.beta * kl
        if len(new.states) and not context.reasoner.head.needs_context:
            parts |= head_drift(context.reasoner, context.reference, new.states, reference.states)
        if context.steps and len(new.latents):
            records = experience.rollout.policy_records
            heads = context.reasoner.head, context.reference.head
            latent_kl = context.policy.kl(heads[0], new.states, heads[1], reference.states, records).mean()
            latent_kl = latent_kl * experience.latent_share
            parts["kl/latent"], loss = latent_kl, loss + rl.latent_beta * latent_kl
    return loss, parts


@torch.no_grad()
def head_drift(reasoner, reference, states: torch.Tensor, reference_states: torch.Tensor) -> dict[str, torch.Tensor]:
    """Cosine between the latents of the model and of the reference model, from the same noise and from states (n, D)
    of each, and the norm of the model's latents."""
    noise = torch.randn(
        len(states),
        1,
        reasoner.head.latent_width,
        device=states.device,
        generator=torch.Generator(states.device).manual_seed(0),
    ).to(states.dtype)
    current, initial = (
        latent_policies.sample_head(model.head, h, noise).float()
        for model, h in ((reasoner, states), (reference, reference_states))
    )
    return {
        "latents/cos_to_sft": F.cosine_similarity(current, initial).mean(),
        "latents/norm_drawn": current.norm(dim=-1).mean(),
    }


def perturbation_loss(context: LossContext, experience: Experience, log_probs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Parts of the loss under perturbed images (train/rl/perturbations.py), from the log-probabilities (R, T) of text
    under the original images. ``train/views`` is their weighted sum."""
    rl, random = context.rl, np.random.default_rng(context.seed)
    kinds = {
        "necessity": (-1, partial(perturbations.mask_patches, share=rl.perturbation_mask_ratio, random=random)),
        "robustness": (1, partial(perturbations.add_noise, progress=context.progress, random=random)),
    }
    weights = experience.weights * experience.rollout.text_decisions
    entropy = rl.perturbations.get("entropy", 0.0)
    parts = {"train/views": -entropy * (log_probs * weights).sum()}
    for name, (sign, change) in kinds.items():
        if not rl.perturbations.get(name):
            continue
        perturbed = perturbations.with_images_of(
            context.reasoner,
            experience.rollout,
            [perturbations.change_images(trace, change) for trace in experience.traces],
            rl.perturbation_latents,
            seed=experience.seed,
            row_ids=experience.row_ids,
            **context.latent_options,
        )
        with torch.set_grad_enabled(torch.is_grad_enabled() and entropy > 0):
            other = context.reasoner(replay, perturbed, None, rl.temperature).text
        parts[f"views/{name}"] = (perturbations.bounded_kl(log_probs, other.detach()) * weights).sum()
        parts["train/views"] = (
            parts["train/views"]
            - entropy * (other * weights).sum()
            + (sign * rl.perturbations[name] * parts[f"views/{name}"])
        )
    return parts


def latent_loss(context: LossContext, experience: Experience, new: torch.Tensor) -> Surrogate:
    """The surrogate loss of latents, from their log-probabilities (n, steps), row by row."""
    rl, policy, objective = context.rl, context.policy, context.objective
    is_latent = experience.rollout.token_type == LATENT
    sizes = is_latent.sum(1, keepdim=True) * context.steps
    is_filled = torch.arange(experience.latent_actions.shape[1], device=new.device) < sizes

    def to_table(values: torch.Tensor) -> torch.Tensor:
        """(n, steps) -> (R, A), row by row from the left."""
        table = torch.zeros(is_filled.shape, dtype=values.dtype, device=new.device)
        return table.masked_scatter(is_filled, values.flatten())

    if policy.uses_head_loss:
        unit = torch.ones((), device=new.device)
        return Surrogate(-(to_table(new) * experience.latent_weights).sum(), 0 * unit, 0 * unit, unit, unit)
    old = new.detach() if experience.old_latent_log_probs is None else experience.old_latent_log_probs
    bound = rl.latent_epsilon or policy.clip
    is_per_sequence = objective.ratio is policy_gradient.sequence_ratio
    ratio = policy_gradient.token_ratio if is_per_sequence else objective.ratio
    if rl.latent_importance_sampling_level == "span":
        is_first = is_latent & ~F.pad(is_latent, (1, 0))[:, :-1]
        span_of_latent = (is_first.cumsum(1) - 1)[is_latent]
        blocks = torch.where(is_filled, to_table(span_of_latent[:, None].expand(-1, context.steps)), -1)
        ratio = policy_gradient.span_ratio(blocks)
    return policy_gradient.surrogate(
        replace(objective, low=bound, high=bound, ratio=ratio),
        to_table(new),
        to_table(old),
        experience.advantages,
        experience.latent_actions,
        experience.latent_weights,
    )
