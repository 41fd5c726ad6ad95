"""The objectives of reinforcement learning as a table: objective = advantage x ratio x average.

Shapes: R rollouts of a batch, in groups of those of one prompt; T positions. ``actions`` (R, T) marks what a policy
chose; forced tokens, prompts and what only follows from the state are none, and leave numerators and denominators.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

SAME = 1e-6  # rewards that differ by no more are the same


# -- advantages: rewards (R,) and groups (R,) -> (R,) ------------------------------------------------------------------
def means(values: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """(R,) the mean of each value's group."""
    _, at, count = groups.unique(return_inverse=True, return_counts=True)
    return (values.new_zeros(len(count)).index_add(0, at, values) / count)[at]


def centre(rewards: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Reward less the mean of its group (Dr. GRPO 2503.20783); exactly 0 where all of a group earn the same."""
    _, at, count = groups.unique(return_inverse=True, return_counts=True)
    ends = [
        rewards.new_zeros(len(count)).scatter_reduce(0, at, rewards, how, include_self=False)[at]
        for how in ("amax", "amin")
    ]
    return torch.where(ends[0] - ends[1] > SAME, rewards - means(rewards, groups), 0.0)


def zscore(rewards: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """The same in units of the group's standard deviation, of n - 1 (GRPO 2402.03300)."""
    _, at, count = groups.unique(return_inverse=True, return_counts=True)
    centred = centre(rewards, groups)
    spread = (means(centred.square(), groups) * count[at] / (count[at] - 1).clamp_min(1)).sqrt()
    return centred / (spread + 1e-4)


def leave_one_out(rewards: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Reward less the mean of the others of its group (RLOO 2402.14740); 0 for a group of one."""
    _, at, count = groups.unique(return_inverse=True, return_counts=True)
    n = count[at].to(rewards)
    return centre(rewards, groups) * n / (n - 1).clamp_min(1)


# -- ratios: log-ratios (R, T) of new over old, with the gradient of the new -> log-ratios that enter the loss ---------
def token(change: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """One ratio an action."""
    return change


def sequence(change: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """One ratio a rollout, the geometric mean of those of its actions (GSPO 2507.18071)."""
    n = actions.sum(1, keepdim=True).clamp_min(1)
    return ((change * actions).sum(1, keepdim=True) / n).expand_as(change)


def none(change: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Ratio 1, with the gradient of the log-probability: the plain policy gradient, of one update a rollout."""
    return change - change.detach()


def within(blocks: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """One ratio for all actions of a block, the geometric mean of theirs, such as one a span of latents; ``blocks``
    (R, T) numbers them from 0 on in each row, -1 where there is none."""

    def ratio(change: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        at, counted = blocks.clamp_min(0), (actions & (blocks >= 0)).to(change)
        width = int(at.max()) + 1 if at.numel() else 1
        n = change.new_zeros(len(change), width).scatter_add(1, at, counted).clamp_min(1)
        return (change.new_zeros(len(change), width).scatter_add(1, at, change * counted) / n).gather(1, at)

    return ratio


# -- averages: actions (R, T) -> (R, T) what the loss of each weighs, 0 where there is none, and by how much all are to
# -- be divided, which adds up over the parts of a batch
def per_sequence(actions: torch.Tensor, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean over rollouts of the mean over their actions; rollouts without an action are left out."""
    n = actions.sum(1, keepdim=True)
    return actions / n.clamp_min(1), (n > 0).sum()


def all_tokens(actions: torch.Tensor, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean over all actions of the batch (DAPO 2503.14476)."""
    return actions.float(), actions.sum()


def constant(actions: torch.Tensor, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum over actions, divided by rollouts x ``longest``: no length of an answer changes what an action weighs."""
    return actions.float(), torch.tensor(len(actions) * longest, device=actions.device)


@dataclass(frozen=True)
class Objective:
    """A row of the table. ``low`` and ``high`` clip the ratio to 1 - low and 1 + high (None: never), ``dual`` bounds
    the loss of an action that did worse than its group by that many advantages.

    Raises:
        ValueError: a ratio of whole rollouts with an average over tokens, which would count a rollout by its length.
    """

    advantage: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ratio: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    average: Callable[[torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]
    low: float | None = 0.2
    high: float | None = 0.2
    dual: float | None = None

    def __post_init__(self):
        if self.ratio is sequence and self.average is not per_sequence:
            raise ValueError("a ratio of whole rollouts needs the average per_sequence.")


OBJECTIVES = {
    "grpo": Objective(zscore, token, per_sequence),
    "dr_grpo": Objective(centre, token, constant),
    "dapo": Objective(zscore, token, all_tokens, high=0.28),
    "gspo": Objective(zscore, sequence, per_sequence, low=3e-4, high=4e-4),
    "rloo": Objective(leave_one_out, none, constant, low=None, high=None),
    "reinforce": Objective(centre, none, constant, low=None, high=None),
}


@dataclass
class Surrogate:
    """What a policy update minimises (scalar), and what is logged of it: shares of actions whose ratio was clipped from
    below and from above, and mean and greatest ratio."""

    loss: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    ratio_mean: torch.Tensor
    ratio_max: torch.Tensor


def surrogate(
    objective: Objective,
    new: torch.Tensor,
    old: torch.Tensor,
    advantages: torch.Tensor,
    actions: torch.Tensor,
    weights: torch.Tensor,
) -> Surrogate:
    """The clipped policy loss (PPO 1707.06347) of actions with log-probabilities ``new`` and ``old`` (R, T) under
    ``advantages`` (R,), weighed by ``weights`` (R, T), which the objective's average gave for the whole batch: rows may
    be part of it.

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
    n, seen = actions.sum().clamp_min(1), torch.where(actions, ratio.detach(), 0.0)
    low, high = ((clipped & side).sum() / n for side in (a < 0, a > 0))
    return Surrogate((losses * weights).sum(), low, high, seen.sum() / n, seen.max())


def dispersion(tables: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """(T,) how much those rollouts of a group that are ``counted`` (G, T) at a position differ there in what they hold
    likely, from the log-probabilities (G, T, V) of every token (TW-GRPO 2505.24718)."""
    n = counted.sum(0).clamp_min(1)[:, None]
    mean = tables.masked_fill(~counted[..., None], 0.0).sum(0) / n
    gap = (mean - tables).clamp(-11, 11)
    return (gap.exp() - gap - 1).masked_fill(~counted[..., None], 0.0).sum((0, 2)) / n[:, 0]


def emphasis(spread: torch.Tensor, most: float) -> torch.Tensor:
    """(..., T) what words weigh by a dispersion: 1 where it is least, ``most`` where it is most (the same)."""
    low, high = spread.amin(-1, keepdim=True), spread.amax(-1, keepdim=True)
    return 1 + (most - 1) * (spread - low) / (high - low + 1e-8)


def distance(new: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Unbiased estimate, never negative, of the KL divergence to a reference from log-probabilities of what the policy
    sampled (k3: http://joschu.net/blog/kl-approx.html)."""
    gap = reference - new
    return gap.exp() - gap - 1
