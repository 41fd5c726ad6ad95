"""What reinforcement learning learns from: the policy latents are drawn by, rollouts, what they earned and how likely
they were, and the figures that are said of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from latent_reason import methods
from latent_reason.decoding.rollout import Rollout
from latent_reason.model.batch import LATENT, PAD
from latent_reason.model.processor import EncodedExample
from latent_reason.objectives import latent_policies
from latent_reason.objectives.latent_policies import LatentPolicy
from latent_reason.objectives.packing import collate_examples
from latent_reason.objectives.policy_gradient import dispersion, emphasis
from latent_reason.objectives.replay import rollout_states
from latent_reason.trace import Trace

from ..config import RLTrainingConfig
from ..data import mode_of
from ..feature_cache import with_features
from .evidence_triples import HIDDEN, abstains, variant
from .rewards import Graded

POLICIES = {
    "mask": latent_policies.Mask,
    "reward_weighted": latent_policies.RewardWeighted,
    "vlpo": latent_policies.Vlpo,
    "gaussian": latent_policies.Gaussian,
    "flow_sde": latent_policies.FlowSde,
    "ddpm_sde": latent_policies.DdpmSde,
}


def policy_of(reasoner, config: RLTrainingConfig, task) -> LatentPolicy | None:
    """The policy of a recipe for the head at hand; None for a method that does not sketch. A ``gaussian`` of a ``rank``
    explores that many directions, the first principal ones of taught latents.

    Raises:
        ValueError: no such policy or option of it, or the head cannot be its head.
    """
    name, options = config.rl.latent_policy, dict(config.rl.latent_policy_options)
    if name not in POLICIES:
        raise ValueError(f"rl.latent_policy={name!r}: one of {', '.join(POLICIES)}.")
    if not reasoner.can_sketch:
        return None
    if name == "mask" and config.trainable == ["head"]:
        raise ValueError(
            "rl.latent_policy=mask: no latent is an action, so a head alone learns nothing. Train text_model or lora "
            "too, or set another rl.latent_policy."
        )
    if name == "vlpo" and config.rl.num_iterations < 2:
        raise ValueError(
            "rl.latent_policy=vlpo: its gradient is zero until the policy has moved. Set rl.num_iterations to 2."
        )
    if name in ("mask", "reward_weighted") and (
        config.rl.latent_beta or config.rl.latent_importance_sampling_level == "span"
    ):
        raise ValueError(
            f"rl.latent_policy={name}: its latents have no likelihood, so rl.latent_beta and "
            "rl.latent_importance_sampling_level=span do nothing. Remove them."
        )
    if name == "gaussian" and reasoner.target is None:
        raise ValueError(
            f"rl.latent_policy=gaussian: {config.method.name!r} has no target, so the spread of its latents is "
            "not known. Take vlpo or mask."
        )
    if name == "gaussian" and reasoner.head.in_hidden_space:
        options.setdefault("spread", reasoner.target.std)
    if name == "gaussian" and "rank" in options:
        options["basis"] = latent_policies.Gaussian.directions(taught_latents(reasoner, task), options.pop("rank"))
    try:
        return POLICIES[name](reasoner.head, **options)
    except TypeError as error:
        raise ValueError(f"rl.latent_policy_options of {name}: {error}.") from None


@torch.no_grad()
def taught_latents(reasoner, task, items: int = 64) -> torch.Tensor:
    """(n, Z) latents that supervised tuning taught on a few items, in the space the head draws in."""
    mode = mode_of(reasoner.method.name)
    objective = methods.objective_of(reasoner)
    batch = objective.collate(reasoner, [task.trace(task[i], mode) for i in range(items)]).to(reasoner.device)
    z = reasoner.target(batch)
    return (z if reasoner.head.in_hidden_space else reasoner.target.normalize(z, batch.spans[:, 2:]))[
        batch.latent_slots()[2]
    ]


def asked(traces: list[Trace], reasoner, seen: bool) -> list[EncodedExample]:
    """What traces ask, encoded; with ``seen``, as a frozen eye sees it, so that it is not looked at again."""
    rows = [reasoner.processor.encode(trace, generate=True) for trace in traces]
    return with_features(rows, reasoner) if seen else rows


@dataclass
class Experience:
    """Rollouts, R = prompts x group of them: what they earned and how likely they were."""

    traces: list[Trace]  # what each row was asked, and as it is encoded
    asked: list[EncodedExample]
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
    share: float = 1.0  # its part of all latents of an update
    rows: list[int] | None = None  # the rows as which they were drawn, and the seed
    seed: int = 0
    failed: int = 0  # groups whose rewards could not be paid

    def part(self, rows: list[int], reasoner) -> Experience:
        """Some of its rows."""
        if len(rows) == len(self.traces):
            return self
        traces, asked = [self.traces[row] for row in rows], [self.asked[row] for row in rows]
        prompt = collate_examples(reasoner.processor, asked).to(reasoner.device)
        rollout, at = self.rollout.select(rows, prompt), torch.tensor(rows, device=self.total.device)
        drawn, kept = (int((one.token_type == LATENT).sum(1).max()) for one in (self.rollout, rollout))
        width = self.latent_actions.shape[1] // max(drawn, 1) * kept  # all that were drawn, counted or not

        def cut(table: torch.Tensor | None, width: int) -> torch.Tensor | None:
            return None if table is None else table[at, :width]

        length = rollout.ids.shape[1]
        return Experience(
            traces,
            asked,
            rollout,
            [self.graded[row] for row in rows],
            {name: values[at] for name, values in self.rewards.items()},
            self.total[at],
            self.advantages[at],
            cut(self.actions, length),
            cut(self.latent_actions, width),
            cut(self.weights, length),
            cut(self.latent_weights, width),
            seed=self.seed,
            rows=[row if self.rows is None else self.rows[row] for row in rows],
        )


@torch.no_grad()
def differing(reasoner, rollout: Rollout, group: int, most: float, at_once: int = 16) -> torch.Tensor:
    """(R, T) what words weigh, 1 to ``most``, by how much the rollouts of their group differ at their position; what is
    no chosen word weighs 1. Past its end, a rollout holds any token as likely as another (TW-GRPO 2505.24718)."""
    h, found = rollout_states(reasoner, rollout), []
    counted = rollout.text_decisions | (rollout.token_type == PAD)
    for at in range(0, h.shape[1], at_once):
        tables = reasoner.backbone.logits(h[:, at : at + at_once]).float().log_softmax(-1)
        over = (rollout.token_type[:, at : at + at_once] == PAD)[..., None]
        tables = tables.masked_fill(over, -math.log(tables.shape[-1]))
        found.append(
            torch.stack(
                [
                    dispersion(*one)
                    for one in zip(tables.split(group), counted[:, at : at + at_once].split(group), strict=True)
                ]
            )
        )
    weights = emphasis(torch.cat(found, 1), most).repeat_interleave(group, 0)
    return weights.masked_fill(~rollout.text_decisions, 1.0)


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
    opened = rollout.text_decisions & (rollout.ids == reasoner.vocabulary.open)
    out = {
        "reward": found.total.mean(),
        "reward_std": spread.mean(),
        "frac_reward_zero_std": (spread < 1e-6).float().mean(),
        "num_tokens": sizes.sum(),
        "completions/clipped_ratio": (~ended).float().mean(),
        "force_answer_rate": sum(rollout.forced_answer) / n,
        "entropy": -rollout.sampled_log_prob[rollout.text_decisions].mean(),
        "accuracy": sum(one.right for one in graded) / n,
        "spans/per_answer": spans / n,
        "latents/per_answer": latents / n,
        "latents/per_span": latents / max(spans, 1),
        "switch/start_rate": opened.any(1).float().mean(),
        "mode/text": sum(not one.spans for one in graded) / n,
        "mode/latent": sum(one.spans > 0 and not thought(one) for one in graded) / n,
        "mode/mixed": sum(one.spans > 0 and thought(one) for one in graded) / n,
        "switch/forced_end_rate": sum(s.cause in ("cap", "budget") for s in rollout.spans) / max(spans, 1),
    }
    for name, kept in (("", sizes), ("_terminated", sizes[ended])):
        if len(kept):
            out |= {f"completions/{how}{name}_length": getattr(kept, how)() for how in ("mean", "min", "max")}
    if opened.any():
        out["switch/start_surprise"] = -rollout.sampled_log_prob[opened].mean()
    if latents:
        z = rollout.latent_embeds[rollout.token_type == LATENT].float()
        usual = reasoner.backbone.embed(rollout.ids[rollout.text_decisions]).float().norm(dim=-1).mean()
        unit = z / z.norm(dim=-1, keepdim=True).clamp_min(1e-8)
        share = torch.linalg.svdvals(unit - unit.mean(0)).square()
        share = share / share.sum().clamp_min(1e-12)
        m = max(len(z), 2)
        out |= {
            "latents/norm": z.norm(dim=-1).mean(),
            "latents/norm_ratio": z.norm(dim=-1).mean() / usual,
            "latents/pairwise_cos": (unit.sum(0).square().sum() - len(z)) / (m * (m - 1)),
            "latents/effective_rank": torch.special.entr(share).sum().exp(),
        }
    for name, values in found.rewards.items():
        out |= {f"rewards/{name}/mean": values.mean(), f"rewards/{name}/std": values.std(correction=0)}
    sketched = torch.tensor([one.spans > 0 for one in graded], device=found.total.device)
    for name, rows in (("mixed", sketched), ("text", ~sketched)):
        if rows.any():
            out[f"reward/by_mode/{name}"] = found.total[rows].mean()
    by_group = zip(found.total.split(group), sketched.split(group), strict=True)
    gaps = [total[drew].mean() - total[~drew].mean() for total, drew in by_group if drew.any() and not drew.all()]
    if gaps:  # within groups, so that it is not about which items are sketched for
        out["reward/with_minus_without_sketch"] = sum(gaps) / len(gaps)
    if told := [abstains(one.text) for one in graded if variant(one.item) != HIDDEN]:
        out["abstain_false_rate"] = sum(told) / len(told)
    return {name: float(value) for name, value in out.items()}
