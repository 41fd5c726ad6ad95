"""Rollouts of reinforcement learning: the policy that samples latents, rollouts with rewards and log-probabilities, and
their metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from latent_reason import methods
from latent_reason.decoding.rollout import Rollout
from latent_reason.model.batch import LATENT, PAD
from latent_reason.model.processor import EncodedExample
from latent_reason.objectives import latent_policies
from latent_reason.objectives.latent_inputs import norm_and_cosine
from latent_reason.objectives.latent_policies import LatentPolicy
from latent_reason.objectives.packing import collate_examples
from latent_reason.objectives.policy_gradient import dispersion, emphasis
from latent_reason.objectives.rollout_states import rollout_states
from latent_reason.trace import Trace

from ..config import RLTrainingConfig
from ..feature_cache import with_features
from ..traces import mode_of
from .evidence_triples import HIDDEN, abstains, variant
from .rewards import Graded

POLICIES = {
    "mask": latent_policies.Mask,
    "pathwise": latent_policies.Pathwise,
    "reward_weighted": latent_policies.RewardWeighted,
    "vlpo": latent_policies.Vlpo,
    "vmf": latent_policies.Vmf,
    "gaussian": latent_policies.Gaussian,
    "flow_sde": latent_policies.FlowSde,
    "ddpm_sde": latent_policies.DdpmSde,
}


def build_policy(reasoner, config: RLTrainingConfig, task) -> LatentPolicy | None:
    """The latent policy of a recipe, for the head of the reasoner; None for a method that does not sketch. ``gaussian``
    with ``rank`` explores only the first principal directions of target latents.

    Raises:
        ValueError: unknown policy or option, or the policy does not support the head or the recipe.
    """
    name, options = config.rl.latent_policy, dict(config.rl.latent_policy_options)
    starts_at_zero = name == "vlpo" or (name == "vmf" and not options.get("fraction"))
    if name not in POLICIES:
        raise ValueError(f"rl.latent_policy={name!r}: unknown. Known: {', '.join(POLICIES)}.")
    check_policy_options(reasoner, config, starts_at_zero)
    if not reasoner.can_sketch:
        return None
    if name == "mask" and config.trainable == ["head"]:
        raise ValueError(
            "rl.latent_policy=mask: latents are no actions, so a head alone gets no gradient. Train text_model or lora "
            "too, or set another rl.latent_policy."
        )
    if starts_at_zero and config.rl.num_iterations < 2:
        raise ValueError(
            f"rl.latent_policy={name}: its gradient is zero until the policy has changed. Set rl.num_iterations to 2."
        )
    if name in ("mask", "pathwise", "reward_weighted") and config.rl.latent_beta:
        raise ValueError(
            f"rl.latent_policy={name}: its latents have no log-probability, so rl.latent_beta has no effect. Remove it."
        )
    if name == "gaussian" and reasoner.target is None:
        raise ValueError(
            f"rl.latent_policy=gaussian: {config.method.name!r} has no target, so the standard deviation of "
            "its latents is unknown. Set vlpo or mask."
        )
    has_spread = reasoner.target is not None and (reasoner.head.in_hidden_space or not reasoner.target.standardize)
    if name in ("gaussian", "pathwise") and has_spread:
        options.setdefault("spread", reasoner.target.std)
    if name == "gaussian" and "rank" in options:
        latents = target_latents(reasoner, task) / options.get("spread", 1.0)
        options["basis"] = latent_policies.Gaussian.directions(latents, options.pop("rank"))
    try:
        return POLICIES[name](reasoner.head, **options)
    except TypeError as error:
        raise ValueError(f"rl.latent_policy_options of {name}: {error}.") from None


def check_policy_options(reasoner, config: RLTrainingConfig, starts_at_zero: bool) -> None:
    """Raises ValueError for keys of latents that have no effect, or no meaning, for a reasoner. ``starts_at_zero``: the
    gradient of the policy is zero until it has changed."""
    rl, name, head = config.rl, config.rl.latent_policy, reasoner.head
    if not reasoner.can_sketch:
        for key, unset in (("latent_anchor", 0), ("completions_per_trajectory", 1)):
            if getattr(rl, key) != unset:
                raise ValueError(f"rl.{key}: method {config.method.name!r} draws no latents. Remove the key.")
        return
    reads = f"a {type(head).__name__} reads more than the state"
    if rl.latent_anchor and (head.needs_context or head.reads_slot):
        raise ValueError(f"rl.latent_anchor: {reads}. Remove the key, or set rl.sft_coef in its place.")
    if rl.completions_per_trajectory > 1 and head.needs_context:
        raise ValueError(f"rl.completions_per_trajectory: {reads}, so a row cannot be continued twice. Set it to 1.")
    if rl.completions_per_trajectory > 1 and rl.perturbations and rl.perturbation_latents == "regenerated":
        raise ValueError(
            "rl.completions_per_trajectory: latents that several rows share cannot be regenerated for one of them. Set "
            "rl.perturbation_latents to recorded."
        )
    if rl.latent_weight == "balanced" and (name in ("mask", "pathwise") or starts_at_zero):
        why = "has a gradient of zero until it has changed" if starts_at_zero else "gives latents no loss of their own"
        raise ValueError(f"rl.latent_weight=balanced: rl.latent_policy={name} {why}. Set a number.")
    if name == "pathwise" and rl.latent_policy_options.get("explore") and reasoner.target is None:
        raise ValueError(
            f"rl.latent_policy_options.explore: {config.method.name!r} has no target, so the standard deviation of its "
            "latents is unknown. Remove it."
        )


@torch.no_grad()
def target_latents(reasoner, task, items: int = 64) -> torch.Tensor:
    """(n, Z) target latents of a few items, in the output space of the head."""
    mode = mode_of(reasoner.method.name)
    objective = methods.objective_of(reasoner)
    traces = [task.trace(task[i], mode) for i in task.indices(items)]
    batch = objective.collate(reasoner, traces).to(reasoner.device)
    if not len(batch.spans):
        raise ValueError(
            f"rl.latent_policy_options: rank needs target latents, and the first {len(traces)} items have no sketch. "
            "Remove rank."
        )
    z = reasoner.target(batch)
    return (z if reasoner.head.in_hidden_space else reasoner.target.normalize(z, batch.spans[:, 2:]))[
        batch.latent_slots()[2]
    ]


def encode_prompts(traces: list[Trace], reasoner, caches_features: bool) -> list[EncodedExample]:
    """The prompts of traces, encoded; with ``caches_features``, with the features of a frozen vision encoder."""
    examples = [reasoner.processor.encode(trace, generate=True) for trace in traces]
    return with_features(examples, reasoner) if caches_features else examples


@dataclass
class Experience:
    """Rollouts with rewards, advantages and loss weights. R = prompts x rollouts of each prompt."""

    traces: list[Trace]  # the prompt of each row
    examples: list[EncodedExample]  # the same, encoded
    rollout: Rollout
    graded: list[Graded]
    rewards: dict[str, torch.Tensor]  # (R,) by name
    total: torch.Tensor  # (R,) weighted sum of rewards
    advantages: torch.Tensor  # (R,)
    actions: torch.Tensor  # (R, T) sampled text tokens and stop decisions
    latent_actions: torch.Tensor  # (R, A) actions of latents, from the left in each row
    weights: torch.Tensor | None = None  # (R, T) of the losses of actions
    latent_weights: torch.Tensor | None = None  # (R, A)
    old_log_probs: torch.Tensor | None = None  # (R, T) before the update; None: the current ones
    old_latent_log_probs: torch.Tensor | None = None  # (n, steps)
    latent_share: float = 1.0  # latents of this micro batch / all latents of an update
    row_ids: list[int] | None = None  # rows of the original batch, which seed the sampling together with `seed`
    seed: int = 0
    num_failed: int = 0  # groups with a failed reward

    def select(self, rows: list[int], reasoner) -> Experience:
        """The experience of some rows."""
        if len(rows) == len(self.traces):
            return self
        traces, examples = [self.traces[row] for row in rows], [self.examples[row] for row in rows]
        prompt = collate_examples(reasoner.processor, examples).to(reasoner.device)
        rollout, index = self.rollout.select(rows, prompt), torch.tensor(rows, device=self.total.device)
        old_latents, new_latents = (int((r.token_type == LATENT).sum(1).max()) for r in (self.rollout, rollout))
        length = rollout.ids.shape[1]
        latent_length = self.latent_actions.shape[1] // max(old_latents, 1) * new_latents

        def crop(table: torch.Tensor | None, width: int) -> torch.Tensor | None:
            return None if table is None else table[index, :width]

        return Experience(
            traces,
            examples,
            rollout,
            [self.graded[row] for row in rows],
            {name: values[index] for name, values in self.rewards.items()},
            self.total[index],
            self.advantages[index],
            crop(self.actions, length),
            crop(self.latent_actions, latent_length),
            crop(self.weights, length),
            crop(self.latent_weights, latent_length),
            seed=self.seed,
            row_ids=[row if self.row_ids is None else self.row_ids[row] for row in rows],
        )


@torch.no_grad()
def token_weights(
    reasoner, rollout: Rollout, group_size: int, max_weight: float, chunk_length: int = 16
) -> torch.Tensor:
    """(R, T) weights of text tokens, from 1 to ``max_weight``, by how much the token distributions of a group differ at
    their position (TW-GRPO 2505.24718). All other positions have weight 1. After its end, a rollout counts with a
    uniform distribution."""
    h, spread = rollout_states(reasoner, rollout), []
    is_counted = rollout.text_decisions | (rollout.token_type == PAD)
    for start in range(0, h.shape[1], chunk_length):
        chunk = slice(start, start + chunk_length)
        log_probs = reasoner.backbone.logits(h[:, chunk]).float().log_softmax(-1)
        has_ended = (rollout.token_type[:, chunk] == PAD)[..., None]
        log_probs = log_probs.masked_fill(has_ended, -math.log(log_probs.shape[-1]))
        groups = zip(log_probs.split(group_size), is_counted[:, chunk].split(group_size), strict=True)
        spread.append(torch.stack([dispersion(*group) for group in groups]))
    weights = emphasis(torch.cat(spread, 1), max_weight).repeat_interleave(group_size, 0)
    return weights.masked_fill(~rollout.text_decisions, 1.0)


def has_reasoning(rollout: Graded) -> bool:
    """Whether there is text before the answer."""
    return bool(rollout.text.split("\\boxed")[0].strip())


@torch.no_grad()
def rollout_metrics(experience: Experience, reasoner, group_size: int) -> dict[str, float]:
    """Metrics of a batch, in groups of ``group_size`` rollouts, with the names of TRL where it has them."""
    graded, rollout = experience.graded, experience.rollout
    n, spread = len(graded), experience.total.view(-1, group_size).std(1, correction=0)
    sizes = torch.tensor([float(r.words + r.latents) for r in graded])
    ended = torch.tensor([r.ended for r in graded])
    latents, spans = (sum(getattr(r, name) for r in graded) for name in ("latents", "spans"))
    opened = rollout.text_decisions & (rollout.ids == reasoner.vocabulary.open)
    metrics = {
        "reward": experience.total.mean(),
        "reward_std": spread.mean(),
        "frac_reward_zero_std": (spread < 1e-6).float().mean(),
        "num_tokens": sizes.sum(),
        "completions/clipped_ratio": (~ended).float().mean(),
        "force_answer_rate": sum(rollout.forced_answer) / n,
        "entropy": -rollout.sampled_log_prob[rollout.text_decisions].mean(),
        "accuracy": sum(r.is_correct for r in graded) / n,
        "spans/per_answer": spans / n,
        "latents/per_answer": latents / n,
        "latents/per_span": latents / max(spans, 1),
        "switch/start_rate": opened.any(1).float().mean(),
        "mode/text": sum(not r.spans for r in graded) / n,
        "mode/latent": sum(r.spans > 0 and not has_reasoning(r) for r in graded) / n,
        "mode/mixed": sum(r.spans > 0 and has_reasoning(r) for r in graded) / n,
        "switch/forced_end_rate": sum(s.cause in ("cap", "budget") for s in rollout.spans) / max(spans, 1),
    }
    for name, lengths in (("", sizes), ("_terminated", sizes[ended])):
        if len(lengths):
            metrics |= {
                f"completions/{statistic}{name}_length": getattr(lengths, statistic)()
                for statistic in ("mean", "min", "max")
            }
    if opened.any():
        metrics["switch/start_surprise"] = -rollout.sampled_log_prob[opened].mean()
    if latents:
        z = rollout.latent_embeds[rollout.token_type == LATENT].float()
        text_norm = reasoner.backbone.embed(rollout.ids[rollout.text_decisions]).float().norm(dim=-1).mean()
        unit = z / z.norm(dim=-1, keepdim=True).clamp_min(1e-8)
        share = torch.linalg.svdvals(unit - unit.mean(0)).square()
        share = share / share.sum().clamp_min(1e-12)
        metrics |= norm_and_cosine(z) | {
            "latents/norm_ratio": z.norm(dim=-1).mean() / text_norm,
            "latents/effective_rank": torch.special.entr(share).sum().exp(),
        }
    for name, values in experience.rewards.items():
        metrics |= {f"rewards/{name}/mean": values.mean(), f"rewards/{name}/std": values.std(correction=0)}
    has_sketch = torch.tensor([r.spans > 0 for r in graded], device=experience.total.device)
    for name, rows in (("mixed", has_sketch), ("text", ~has_sketch)):
        if rows.any():
            metrics[f"reward/by_mode/{name}"] = experience.total[rows].mean()
    by_group = zip(experience.total.split(group_size), has_sketch.split(group_size), strict=True)
    gaps = [total[rows].mean() - total[~rows].mean() for total, rows in by_group if rows.any() and not rows.all()]
    if gaps:  # within groups, so that the choice of items for sketches does not matter
        metrics["reward/with_minus_without_sketch"] = sum(gaps) / len(gaps)
    if has_abstained := [abstains(r.text) for r in graded if variant(r.item) != HIDDEN]:
        metrics["abstain_false_rate"] = sum(has_abstained) / len(has_abstained)
    return {name: float(value) for name, value in metrics.items()}
