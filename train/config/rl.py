"""The keys of reinforcement learning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from latent_reason.values import Bounds, Count, Name, Natural, Share, Weight

from .groups import Keys

RewardWeight = Annotated[float, Bounds(-1_000_000, 1_000_000)]
PERTURBATIONS = ("necessity", "robustness", "entropy")


@dataclass
class RLConfig(Keys):
    """Reinforcement learning"""

    group: ClassVar[str] = "rl."

    # rollouts
    num_generations: Annotated[int, Bounds(1, 100_000)] = 8
    """Rollouts of each item; rewards are compared within these."""
    num_slots: Natural = 0
    """Rollouts that are decoded at the same time; one that ends leaves its slot to the next. 0: all."""
    completions_per_trajectory: Count = 1
    """Rollouts that share all up to the end of the first sketch of the first of them, and differ after it."""
    temperature: Annotated[float, Bounds(0, 100, above=True)] = 1.0
    """Sampling temperature of text."""
    max_completion_length: Count = 256
    """Most positions (tokens and latents) of a rollout."""
    max_spans: Natural = 0
    """Most sketches of a rollout; 0: no limit of its own."""
    latents_per_span: Natural = 0
    """Latents of a sketch, for methods with a fixed count; 0: that of the method."""
    answer_prefix: str = ""
    """Text that a rollout at its limit is forced to continue with, such as \\boxed{; empty: it is cut off."""
    answer_budget: Count = 32
    """Most positions after answer_prefix."""
    sampler: Literal["shuffle", "pass_rate"] = "shuffle"
    """Order of items: shuffled, or levels drawn by how often they are solved."""
    evidence_triples: bool = False
    """Give each item three times: as it is, with its evidence hidden, and with it changed."""

    # rewards and advantages
    rewards: dict[str, RewardWeight] = field(default_factory=lambda: {"accuracy": 1.0, "format": 0.1})
    """Reward functions of train/rl/rewards.py, or dotted paths, with their weights."""
    process_rewards: Literal["correct", "all"] = "correct"
    """Answers that rewards of the way to an answer, such as sketch_right, are granted to."""
    loss_type: Literal["grpo", "dr_grpo", "dapo", "gspo", "rloo", "reinforce"] = "dapo"
    """Advantage, ratio and average of the loss (latent_reason/objectives/policy_gradient.py)."""
    mask_truncated_completions: bool = False
    """Leave rollouts that ran out of budget out of the loss and of the statistics of their group."""
    dynamic_sampling: Annotated[int, Bounds(0, 1000)] = 0
    """Up to this many times data.global_batch_size more items replace items whose rollouts all earn the same (DAPO)."""
    difficulty_weighting: bool = False
    """Weight advantages by how seldom the level is solved."""
    max_token_weight: Weight = 0.0
    """Largest weight of tokens where the rollouts of an item differ (TW-GRPO), such as 1.7; 0: no weighting."""

    # updates
    num_iterations: Count = 1
    """Optimizer steps on each batch of rollouts."""
    dual_clip: Weight = 0.0
    """Bound of the loss of a bad action, in advantages; 0: none."""
    beta: Weight = 0.0
    """Weight of the KL divergence of text and switch decisions from ref_model."""
    ref_model: Name | None = None
    """Reference checkpoint of both KL terms; default: init_from."""
    sft_coef: Weight = 0.0
    """Weight of the supervised loss on the traces of the solver."""
    sft_items: Literal["unsolved", "all"] = "unsolved"
    """Items with that loss: those that no rollout solved, or all."""
    sft_decay_steps: Natural = 0
    """Steps in which sft_coef falls to 1/e; 0: it stays."""

    # latents
    latent_policy: Literal["mask", "pathwise", "reward_weighted", "vlpo", "vmf", "gaussian", "flow_sde", "ddpm_sde"] = (
        "mask"
    )
    """How latents learn (latent_reason/objectives/latent_policies): mask: not at all; pathwise: from the text after them; \
others: as actions."""
    latent_policy_options: dict[str, Any] = field(default_factory=dict)
    """Options of the latent policy, such as {fraction: 0.05}."""
    latent_weight: Weight | Literal["balanced"] = 1.0
    """Weight of the policy loss of latents beside that of text; balanced: the weight at which both gradients of the states \
have the same norm, a moving average."""
    latent_beta: Weight = 0.0
    """Weight of the KL divergence of latents from ref_model."""
    latent_anchor: Weight = 0.0
    """Weight of the squared distance of the latents of the model from latent_anchor_to."""
    latent_anchor_to: Literal["start", "encoder", "rendering"] = "start"
    """start: the latents of ref_model, in stds of a channel; encoder: what its encoder makes of their own rendering, in \
the same; rendering: how much their rendering differs from that of the latents of ref_model, in stds of its pixels."""
    latent_importance_sampling_level: Literal["latent", "span"] = "span"
    """One probability ratio for each latent, or one for each sketch: the geometric mean of those of its latents."""
    latent_epsilon: Weight = 0.0
    """Clipping range of the ratios of latents; 0: that of the latent policy."""

    # perturbations
    perturbations: dict[str, Weight] = field(default_factory=dict)
    """Weights of losses under perturbed images: necessity, robustness, entropy (train/rl/perturbations.py)."""
    perturbation_latents: Literal["recorded", "regenerated", "dropped"] = "recorded"
    """Latents under a perturbed image: those of the rollout, new ones, or none."""
    perturbation_mask_ratio: Share = 0.6
    """Share of image patches that necessity masks."""

    def __post_init__(self):
        super().__post_init__()
        self._check_rollouts()
        if unknown := self.perturbations.keys() - set(PERTURBATIONS):
            raise ValueError(f"rl.perturbations: unknown {min(unknown)!r}. Known: {', '.join(PERTURBATIONS)}.")
        if self.latent_anchor_to != "start" and not self.latent_anchor:
            raise ValueError(
                f"rl.latent_anchor_to={self.latent_anchor_to} has no effect without a weight. Set rl.latent_anchor, such as "
                "0.1, or remove it."
            )
        if 0 < self.max_token_weight < 1:
            raise ValueError(f"rl.max_token_weight={self.max_token_weight}: must be 1 or more, or 0 for no weighting.")
        if self.num_iterations > 1 and not has_ratio(self.loss_type):
            raise ValueError(
                f"rl.loss_type={self.loss_type!r} has no probability ratio, so only the first step on a batch of "
                "rollouts is unbiased. Set rl.num_iterations to 1."
            )

    def _check_rollouts(self):
        if self.num_generations < 2:
            raise ValueError(
                f"rl.num_generations={self.num_generations}: rollouts are compared with others of their item. "
                "Set it to 2 or more."
            )
        if self.num_generations % self.completions_per_trajectory:
            raise ValueError(
                f"rl.completions_per_trajectory={self.completions_per_trajectory} does not divide "
                f"rl.num_generations={self.num_generations}."
            )
        if self.num_slots and self.completions_per_trajectory > 1:
            raise ValueError(
                "rl.num_slots: rollouts that share a trajectory are decoded at the same time. Set it to 0, or "
                "rl.completions_per_trajectory to 1."
            )
        if 1 < self.completions_per_trajectory == self.num_generations:
            raise ValueError(
                "rl.completions_per_trajectory: all rollouts of an item would share their sketches, so that no sketch "
                "is compared with another. Set a smaller number."
            )
        if not any(self.rewards.values()):
            what = "has no weight but 0" if self.rewards else "is empty"
            raise ValueError(f"rl.rewards {what}. Name a reward, such as {{accuracy: 1.0}}.")


def has_ratio(loss_type: str) -> bool:
    """Whether a loss compares the policy with the one that sampled, as several updates of a batch need."""
    from latent_reason.objectives.policy_gradient import OBJECTIVES  # which imports torch; --help does not

    return OBJECTIVES[loss_type].low is not None
