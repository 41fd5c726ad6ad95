"""What reinforcement learning learns from: the policy latents are drawn by, rollouts, what they earned and how likely
they were, and the figures that are said of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from latent_reason import policies
from latent_reason.batch import LATENT
from latent_reason.generation import Rollout
from latent_reason.policies import LatentPolicy
from latent_reason.trace import Trace

from .data import mode_of
from .recipe import Recipe
from .rewards import Graded
from .triples import HIDDEN, abstains, variant

POLICIES = {"mask": policies.Mask, "reward_weighted": policies.RewardWeighted, "vlpo": policies.Vlpo,
            "gaussian": policies.Gaussian, "flow_sde": policies.FlowSde, "ddpm_sde": policies.DdpmSde}


def policy_of(reasoner, recipe: Recipe, task) -> LatentPolicy | None:
    """The policy of a recipe for the head at hand; None for a method that does not sketch. A ``gaussian`` of a ``rank``
    explores that many directions, the first principal ones of taught latents.

    Raises:
        ValueError: no such policy or option of it, or the head cannot be its head.
    """
    name, options = recipe.rl.policy, dict(recipe.rl.policy_options)
    if name not in POLICIES:
        raise ValueError(f"rl.policy={name!r}: one of {', '.join(POLICIES)}.")
    if not reasoner.sketches:
        return None
    if name == "mask" and recipe.trainable == ["head"]:
        raise ValueError("rl.policy=mask: no latent is an action, so a head alone learns nothing. Train trunk or lora "
                         "too, or take another rl.policy.")
    if name == "gaussian" and reasoner.head.raw:
        options.setdefault("spread", reasoner.target.spread)
    if name == "gaussian" and "rank" in options:
        options["basis"] = policies.Gaussian.directions(taught_latents(reasoner, task), options.pop("rank"))
    try:
        return POLICIES[name](reasoner.head, **options)
    except TypeError as error:
        raise ValueError(f"rl.policy_options of {name}: {error}.") from None


@torch.no_grad()
def taught_latents(reasoner, task, items: int = 64) -> torch.Tensor:
    """(n, Z) latents that supervised tuning taught on a few items, in the space the head draws in."""
    mode = mode_of(reasoner.recipe["method"])
    batch = reasoner.collator()([task.trace(task[i], mode) for i in range(items)]).to(reasoner.device)
    z = reasoner.target(reasoner.backbone, batch)
    return (z if reasoner.head.raw else reasoner.target.standard(z, batch.spans[:, 2:]))[batch.slots()[2]]


@dataclass
class Experience:
    """Rollouts, R = prompts x group of them: what they earned and how likely they were."""

    traces: list[Trace]  # what each row was asked
    rollout: Rollout
    graded: list[Graded]
    rewards: dict[str, torch.Tensor]  # (R,) by name
    total: torch.Tensor  # (R,)
    advantages: torch.Tensor  # (R,)
    actions: torch.Tensor  # (R, T) words and stops that were chosen
    latent_actions: torch.Tensor  # (R, A) the actions that latents are made of, row by row from the left
    weights: torch.Tensor | None = None  # (R, T) what the loss of an action weighs
    latent_weights: torch.Tensor | None = None  # (R, A)
    words: torch.Tensor | None = None  # (R, T) log-probabilities they were drawn with; None: those of now
    latents: torch.Tensor | None = None  # (n, steps)

    def part(self, rows: list[int], reasoner) -> Experience:
        """Some of its rows."""
        if len(rows) == len(self.traces):
            return self
        traces = [self.traces[row] for row in rows]
        prompt = reasoner.collator()(traces, generate=True).to(reasoner.device)
        rollout, at = self.rollout.part(rows, prompt), torch.tensor(rows, device=self.total.device)
        width = max(1, int(self.latent_actions[at].sum(1).max())) if self.latent_actions.numel() else 0

        def cut(table: torch.Tensor | None, width: int) -> torch.Tensor | None:
            return None if table is None else table[at, :width]

        length = rollout.ids.shape[1]
        return Experience(traces, rollout, [self.graded[row] for row in rows],
                          {name: values[at] for name, values in self.rewards.items()}, self.total[at],
                          self.advantages[at], cut(self.actions, length), cut(self.latent_actions, width),
                          cut(self.weights, length), cut(self.latent_weights, width))


def thought(one: Graded) -> bool:
    """Whether it wrote anything before its answer."""
    return bool(one.text.split("\\boxed")[0].strip())


@torch.no_grad()
def figures(found: Experience, reasoner, group: int) -> dict[str, float]:
    """Figures of a batch, in groups of ``group``, under TRL's names where it has them."""
    graded, rollout = found.graded, found.rollout
    n, spread = len(graded), found.total.view(-1, group).std(1, correction=0)
    sizes = torch.tensor([float(one.words + one.latents) for one in graded])
    ended = torch.tensor([one.ended for one in graded])
    latents, spans = (sum(getattr(one, name) for one in graded) for name in ("latents", "spans"))
    opened = rollout.chosen & (rollout.ids == reasoner.vocabulary.open)
    out = {"reward": found.total.mean(), "reward_std": spread.mean(),
           "frac_reward_zero_std": (spread < 1e-6).float().mean(), "num_tokens": sizes.sum(),
           "completions/clipped_ratio": (~ended).float().mean(), "force_answer_rate": sum(rollout.hurried) / n,
           "entropy": -rollout.sampled_logprob[rollout.chosen].mean(),
           "accuracy": sum(one.right for one in graded) / n, "spans/per_answer": spans / n,
           "latents/per_answer": latents / n, "latents/per_span": latents / max(spans, 1),
           "switch/start_rate": opened.any(1).float().mean(), "mode/text": sum(not one.spans for one in graded) / n,
           "mode/latent": sum(one.spans > 0 and not thought(one) for one in graded) / n,
           "mode/mixed": sum(one.spans > 0 and thought(one) for one in graded) / n,
           "switch/forced_end_rate": sum(s.cause in ("cap", "budget") for s in rollout.spans) / max(spans, 1)}
    for name, kept in (("", sizes), ("_terminated", sizes[ended])):
        if len(kept):
            out |= {f"completions/{how}{name}_length": getattr(kept, how)() for how in ("mean", "min", "max")}
    if opened.any():
        out["switch/start_surprise"] = -rollout.sampled_logprob[opened].mean()
    if latents:
        z = rollout.vectors[rollout.kind == LATENT].float()
        usual = reasoner.backbone.embed(rollout.ids[rollout.chosen]).float().norm(dim=-1).mean()
        unit = z / z.norm(dim=-1, keepdim=True).clamp_min(1e-8)
        share = torch.linalg.svdvals(unit - unit.mean(0)).square()
        share = share / share.sum().clamp_min(1e-12)
        m = max(len(z), 2)
        out |= {"latents/norm": z.norm(dim=-1).mean(), "latents/norm_ratio": z.norm(dim=-1).mean() / usual,
                "latents/pairwise_cos": (unit.sum(0).square().sum() - len(z)) / (m * (m - 1)),
                "latents/effective_rank": torch.special.entr(share).sum().exp()}
    for name, values in found.rewards.items():
        out |= {f"rewards/{name}/mean": values.mean(), f"rewards/{name}/std": values.std(correction=0)}
    sketched = torch.tensor([one.spans > 0 for one in graded], device=found.total.device)
    for name, rows in (("mixed", sketched), ("text", ~sketched)):
        if rows.any():
            out[f"reward/by_mode/{name}"] = found.total[rows].mean()
    if sketched.any() and not sketched.all():
        out["reward/with_minus_without_sketch"] = found.total[sketched].mean() - found.total[~sketched].mean()
    if told := [abstains(one.text) for one in graded if variant(one.item) != HIDDEN]:
        out["abstain_false_rate"] = sum(told) / len(told)
    return {name: float(value) for name, value in out.items()}
