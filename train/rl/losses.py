"""Losses of reinforcement learning: the policy loss of text, the loss of latents, and penalties.

Shapes: R rollouts, T positions, n latents of all rollouts together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from latent_reason.decoding.rollout import Rollout
from latent_reason.model.batch import LATENT
from latent_reason.objectives import latent_policies, policy_gradient
from latent_reason.objectives.latent_policies import LatentPolicy
from latent_reason.objectives.policy_gradient import PolicyObjective, Surrogate
from latent_reason.objectives.replay import Replay, replay
from latent_reason.visualization.sketch_decoder import SketchDecoder

from ..config import RLConfig
from . import perturbations
from .anchors import anchor_distance
from .rollouts import Experience


@dataclass(frozen=True)
class LossContext:
    """What the losses of one update need."""

    reasoner: torch.nn.Module
    reference: torch.nn.Module | None  # the model at the start of training
    decoder: SketchDecoder | None
    policy: LatentPolicy | None
    objective: PolicyObjective
    rl: RLConfig
    latent_options: dict  # options of `generate` that the latents were sampled with
    progress: float  # 0 to 1
    seed: list[int]  # of perturbations
    latent_weight: float = 1.0  # of the policy loss of latents

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
    if rl.latent_weight == "balanced":  # they cost a pass through the output layer each
        parts["grad_norm/text"] = gradient_norm(text.loss, new.hidden)
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
        if rl.latent_weight == "balanced":
            parts["grad_norm/latent"] = gradient_norm(latent.loss, new.hidden)
        loss = loss + context.latent_weight * latent.loss
    if context.reference is not None:
        reference_parts, reference_loss = compare_with_reference(context, experience, new, log_probs)
        parts, loss = parts | reference_parts, loss + reference_loss
    return loss, parts


def gradient_norm(loss: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """The norm (scalar) of the gradient of a loss by the states (B, T, D) that it is computed from; 0 where no gradients
    are taken."""
    if not loss.requires_grad or not states.requires_grad:
        return torch.zeros((), device=loss.device)
    (gradient,) = torch.autograd.grad(loss, states, retain_graph=True, allow_unused=True)
    return torch.zeros((), device=loss.device) if gradient is None else gradient.float().norm()


def compare_with_reference(
    context: LossContext, experience: Experience, new: Replay, log_probs: torch.Tensor
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Logged parts and the weighted sum (scalar) of what keeps a policy near the reference model."""
    rl, reasoner, reference, rollout = context.rl, context.reasoner, context.reference, experience.rollout
    with torch.no_grad():
        old = replay(reference, rollout, None, rl.temperature)
    kl = (policy_gradient.distance(log_probs, old.text + old.stops) * experience.weights).sum()
    parts, loss = {"kl": kl}, rl.beta * kl
    if not len(new.states) or reasoner.head.needs_context or reasoner.head.reads_slot:
        return parts, loss
    drawn = drawn_latents(context, reasoner, new.states, rollout)
    with torch.no_grad():
        initial = drawn_latents(context, reference, old.states, rollout)
        parts["latents/cos_to_sft"] = F.cosine_similarity(drawn, initial).mean()
        parts["latents/norm_drawn"] = drawn.norm(dim=-1).mean()
    if rl.latent_anchor:
        away = anchor_distance(rl.latent_anchor_to, reference, context.decoder, experience, drawn, initial)
        away = away * experience.latent_share
        parts["train/latent_anchor"], loss = away, loss + rl.latent_anchor * away
    if context.steps and len(new.latents):
        heads = reasoner.head, reference.head
        latent_kl = context.policy.kl(heads[0], new.states, heads[1], old.states, rollout.policy_records).mean()
        latent_kl = latent_kl * experience.latent_share
        parts["kl/latent"], loss = latent_kl, loss + rl.latent_beta * latent_kl
    return parts, loss


def drawn_latents(context: LossContext, model: torch.nn.Module, states: torch.Tensor, rollout: Rollout) -> torch.Tensor:
    """(n, Z) the latents that a model draws in states (n, D): from the noise of the rollout where it was recorded, else
    from the same noise at every call."""
    if context.policy is not None and context.policy.has_path:
        return context.policy.sample(model.head, states, rollout.policy_records.to(states))[0].float()
    random = torch.Generator(states.device).manual_seed(0)
    noise = torch.randn(len(states), 1, model.head.latent_width, device=states.device, generator=random)
    return latent_policies.sample_head(model.head, states, noise.to(states.dtype)).float()


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
