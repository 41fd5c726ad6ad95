"""Policy-gradient losses as a table: loss = advantage x ratio x average.

Shapes: R rollouts of a batch, in groups that share a prompt; T positions. ``actions`` (R, T) marks what the policy
chose. Forced tokens and prompts are no actions; they count neither in numerators nor in denominators.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

EQUAL_REWARDS = 1e-6  # rewards that differ by no more are equal


# -- advantages: rewards (R,) and groups (R,) -> (R,) ------------------------------------------------------------------
def group_means(values: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """(R,) the mean of the group of each value."""
    _, at, count = groups.unique(return_inverse=True, return_counts=True)
    return (values.new_zeros(len(count)).index_add(0, at, values) / count)[at]


def center(rewards: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Reward minus the mean of its group (Dr. GRPO 2503.20783); exactly 0 where all rewards of a group are equal."""
    _, at, count = groups.unique(return_inverse=True, return_counts=True)
    ends = [
        rewards.new_zeros(len(count)).scatter_reduce(0, at, rewards, how, include_self=False)[at]
        for how in ("amax", "amin")
    ]
    return torch.where(ends[0] - ends[1] > EQUAL_REWARDS, rewards - group_means(rewards, groups), 0.0)


def zscore(rewards: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """The same divided by the group's standard deviation, with n - 1 (GRPO 2402.03300)."""
    _, at, count = groups.unique(return_inverse=True, return_counts=True)
    centered = center(rewards, groups)
    spread = (group_means(centered.square(), groups) * count[at] / (count[at] - 1).clamp_min(1)).sqrt()
    return centered / (spread + 1e-4)


def leave_one_out(rewards: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Reward minus the mean of the others of its group (RLOO 2402.14740); 0 for a group of one."""
    _, at, count = groups.unique(return_inverse=True, return_counts=True)
    n = count[at].to(rewards)
    return center(rewards, groups) * n / (n - 1).clamp_min(1)


# -- ratios: log-ratios (R, T) of new over old, with the gradient of the new -> log-ratios that enter the loss ---------
def token_ratio(change: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """One ratio for each action."""
    return change


def sequence_ratio(change: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """One ratio for each rollout, the geometric mean of those of its actions (GSPO 2507.18071)."""
    n = actions.sum(1, keepdim=True).clamp_min(1)
    return ((change * actions).sum(1, keepdim=True) / n).expand_as(change)


def no_ratio(change: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Ratio 1 with the gradient of the log-probability: the plain policy gradient, for one update a rollout."""
    return change - change.detach()


def span_ratio(blocks: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """One ratio for all actions of a block, such as a span of latents: their geometric mean. ``blocks`` (R, T) numbers
    blocks from 0 in each row; -1: none."""

    def ratio(change: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        at, counted = blocks.clamp_min(0), (actions & (blocks >= 0)).to(change)
        width = int(at.max()) + 1 if at.numel() else 1
        n = change.new_zeros(len(change), width).scatter_add(1, at, counted).clamp_min(1)
        return (change.new_zeros(len(change), width).scatter_add(1, at, change * counted) / n).gather(1, at)

    return ratio


# -- averages: actions (R, T) -> weights (R, T) of their losses, 0 where there is no action, and the divisor of all,
# -- which adds up over the parts of a batch
def per_sequence(actions: torch.Tensor, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean over rollouts of the mean over their actions; rollouts without an action do not count."""
    n = actions.sum(1, keepdim=True)
    return actions / n.clamp_min(1), (n > 0).sum()


def all_tokens(actions: torch.Tensor, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean over all actions of the batch (DAPO 2503.14476)."""
    return actions.float(), actions.sum()


def constant(actions: torch.Tensor, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum over actions, divided by rollouts x ``longest``: the weight of an action does not depend on lengths."""
    return actions.float(), torch.tensor(len(actions) * longest, device=actions.device)


@dataclass(frozen=True)
class PolicyObjective:
    """A row of the table. ``low`` and ``high`` clip the ratio to 1 - low and 1 + high (None: no clipping). ``dual``
    bounds the loss of an action with a negative advantage to that many advantages.

    Raises:
        ValueError: a ratio of whole rollouts with an average over tokens, which would weight a rollout by its length.
    """

    advantage: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ratio: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    average: Callable[[torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]
    low: float | None = 0.2
    high: float | None = 0.2
    dual: float | None = None

    def __post_init__(self):
        if self.ratio is sequence_ratio and self.average is not per_sequence:
            raise ValueError("a ratio of whole rollouts needs the average per_sequence.")


OBJECTIVES = {
    "grpo": PolicyObjective(zscore, token_ratio, per_sequence),
    "dr_grpo": PolicyObjective(center, token_ratio, constant),
    "dapo": PolicyObjective(zscore, token_ratio, all_tokens, high=0.28),
    "gspo": PolicyObjective(zscore, sequence_ratio, per_sequence, low=3e-4, high=4e-4),
    "rloo": PolicyObjective(leave_one_out, no_ratio, constant, low=None, high=None),
    "reinforce": PolicyObjective(center, no_ratio, constant, low=None, high=None),
}


@dataclass
class Surrogate:
    """The loss of a policy update (scalar), and its metrics: shares of actions whose ratio was clipped from below and
    from above, and the mean and largest ratio."""

    loss: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    ratio_mean: torch.Tensor
    ratio_max: torch.Tensor


def surrogate(
    objective: PolicyObjective,
    new: torch.Tensor,
    old: torch.Tensor,
    advantages: torch.Tensor,
    actions: torch.Tensor,
    weights: torch.Tensor,
) -> Surrogate:
    """The clipped policy loss (PPO 1707.06347) of actions with log-probabilities ``new`` and ``old`` (R, T) and
    ``advantages`` (R,). ``weights`` (R, T) come from the objective's average over the whole batch, of which these rows
    may be a part.

    Raises:
        ValueError: a log-probability of an action is not finite; names the row and the position.
    """
    for name, values in (("new", new), ("old", old)):
        if len(bad := (actions & ~values.isfinite()).nonzero()):
            row, at = bad[0].tolist()
            raise ValueError(
                f"the {name} log-probability of the action at position {at} of rollout {row} is "
                f"{float(values[row, at])}."
            )
    change = torch.where(actions, new - old.detach(), 0.0)
    ratio = objective.ratio(change, actions).exp()
    a = advantages[:, None]
    losses, clipped = -ratio * a, torch.zeros_like(actions)
    if objective.low is not None:
        bounded = -ratio.clamp(1 - objective.low, 1 + objective.high) * a
        clipped = (bounded > losses) & actions
        losses = torch.maximum(losses, bounded)
    if objective.dual is not None:
        losses = torch.where(a < 0, torch.minimum(losses, -objective.dual * a), losses)
    n, ratios = actions.sum().clamp_min(1), torch.where(actions, ratio.detach(), 0.0)
    low, high = ((clipped & side).sum() / n for side in (a < 0, a > 0))
    return Surrogate((losses * weights).sum(), low, high, ratios.sum() / n, ratios.max())


def dispersion(tables: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """(T,) how much the token distributions of the rollouts of a group differ at each position, from log-probabilities
    (G, T, V) of every token; ``counted`` (G, T) marks the rollouts that count at a position (TW-GRPO 2505.24718)."""
    n = counted.sum(0).clamp_min(1)[:, None]
    mean = tables.masked_fill(~counted[..., None], 0.0).sum(0) / n
    gap = (mean - tables).clamp(-11, 11)
    return (gap.exp() - gap - 1).masked_fill(~counted[..., None], 0.0).sum((0, 2)) / n[:, 0]


def emphasis(spread: torch.Tensor, most: float) -> torch.Tensor:
    """(..., T) token weights from a dispersion: 1 where it is smallest, ``most`` where it is largest (same source)."""
    low, high = spread.amin(-1, keepdim=True), spread.amax(-1, keepdim=True)
    return 1 + (most - 1) * (spread - low) / (high - low + 1e-8)


def distance(new: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Unbiased, non-negative estimate of the KL divergence to a reference, from log-probabilities of samples of the
    policy (k3: http://joschu.net/blog/kl-approx.html)."""
    gap = reference - new
    return gap.exp() - gap - 1
