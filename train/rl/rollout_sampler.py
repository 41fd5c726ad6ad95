"""Sample rollouts, grade them, and compute their advantages: what a policy update of reinforcement learning begins with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from latent_reason.decoding.config import GenerationConfig
from latent_reason.decoding.engine import generate
from latent_reason.decoding.queue import Request, decode_requests
from latent_reason.decoding.rollout import Rollout, join_rollouts
from latent_reason.decoding.trajectories import generate_trajectories
from latent_reason.model.batch import LATENT, TEXT, MixedBatch
from latent_reason.model.processor import EncodedExample
from latent_reason.objectives.packing import collate_examples
from latent_reason.objectives.policy_gradient import PolicyObjective
from latent_reason.tasks import Item
from latent_reason.trace import Trace

from ..config import RLTrainingConfig
from ..throughput import Counts
from ..traces import mode_of
from . import reward_inputs, rewards
from .evidence_triples import HIDDEN, abstains, variant
from .reward_context import RewardContext
from .rewards import Graded
from .rollouts import Experience, build_policy, encode_prompts, rollout_metrics
from .samplers import PassRates

MIN_ADVANTAGE = 1e-6  # smaller advantages give no gradient


def have_equal_weights(parameters: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return len(parameters) == len(others) and all(map(torch.equal, parameters, others))


@dataclass
class Collected:
    """Rollouts to learn from, the items that were tried, those that no rollout solved, and the metrics of every batch of
    rollouts."""

    experiences: list[Experience]
    tried: list[Item]
    unsolved: list[Item]
    metrics: list[dict[str, float]]


class RolloutSampler:
    """Samples rollouts of a reasoner on items of a task, with ``rl.num_generations`` for each item.

    Attributes:
        num_prompts: items of a batch of rollouts on this process.
        policy: how latents are sampled; None for a method that does not sketch.
        pass_rates: how often the items of each level are solved.
        last: the rollouts of the last batch.
        num_batches: batches of rollouts so far.
        counts: tokens and rollouts so far, in this process.
    """

    def __init__(
        self,
        reasoner,
        task,
        config: RLTrainingConfig,
        objective: PolicyObjective,
        num_prompts: int,
        reference=None,
        decoder=None,
    ):
        self.num_prompts = num_prompts
        self.reasoner, self.task, self.config, self.rl, self.objective = reasoner, task, config, config.rl, objective
        self.mode, self.policy = mode_of(config.method.name), build_policy(reasoner, config, task)
        rewards.check_weights(config.rl.rewards, config.rl.process_rewards == "all")
        self.rewards = {name: (rewards.find(name), weight) for name, weight in config.rl.rewards.items()}
        self.context = RewardContext(reasoner, reference, decoder, task, self.mode)
        self.reward_inputs = sorted(
            {name for reward, _ in self.rewards.values() for name in getattr(reward, "wants", ())}
        )
        self.pass_rates = PassRates(list(task.levels))
        self.can_cache_features = not any(p.requires_grad for p in reasoner.backbone.vision_parameters) and (
            reference is None
            or have_equal_weights(reasoner.backbone.vision_parameters, reference.backbone.vision_parameters)
        )
        self.last: Experience | None = None
        self.failed_rewards: set[str] = set()  # a warning was printed for each
        self.num_batches, self.counts = 0, Counts()

    @property
    def steps(self) -> int:
        """Actions of one latent."""
        return self.policy.steps if self.policy is not None else 0

    def sample(self, items: Sequence[Item], rank: int = 0, step: int = 0) -> Experience:
        """Sample rollouts of each item, grade them, and compute advantages within groups. ``rank`` is that of the
        process, and ``step`` the number of optimizer steps so far."""
        rl, g, device, seed = self.rl, self.rl.num_generations, self.reasoner.device, self.next_seed(rank)
        traces = [self.task.trace(item, self.mode) for item in items]
        examples = encode_prompts(traces, self.reasoner, self.can_cache_features)
        traces, examples = ([x for x in rows for _ in range(g)] for rows in (traces, examples))
        rollout = self.decode(traces, examples, seed)
        self.num_batches += 1
        items = [item for item in items for _ in range(g)]
        measured = {name: reward_inputs.find(name)(self.context, rollout, items) for name in self.reward_inputs}
        graded = [
            self.grade(rollout, row, item, {name: values[row] for name, values in measured.items()}, step)
            for row, item in enumerate(items)
        ]
        self.counts.tokens += sum(x.words + x.latents for x in graded)
        self.counts.examples += len(graded)
        self.counts.with_sketches += sum(x.spans > 0 for x in graded)
        groups = [graded[start : start + g] for start in range(0, len(graded), g)]
        values, has_failed = rewards.compute_all(self.rewards, groups, self.failed_rewards, rl.process_rewards == "all")
        values = {name: torch.tensor(row_values, device=device) for name, row_values in values.items()}
        total = sum(weight * values[name] for name, (_, weight) in self.rewards.items())
        group_ids = torch.arange(len(items) // g, device=device).repeat_interleave(g)
        is_counted = torch.tensor([x.ended or not rl.mask_truncated_completions for x in graded], device=device)
        is_counted &= ~torch.tensor(has_failed, device=device).repeat_interleave(g)
        advantages = torch.zeros_like(total)
        advantages[is_counted] = self.objective.advantage(total[is_counted], group_ids[is_counted])
        if rl.difficulty_weighting:
            weights = [self.pass_rates.weight(item.level) for item in items]
            advantages = advantages * torch.tensor(weights, device=device)
        for group in groups:
            self.pass_rates.update(group[0].item.level, sum(x.is_correct for x in group) / g)
        has_no_gradient = advantages.view(-1, g).abs().amax(1) <= MIN_ADVANTAGE
        self.pass_rates.update_skipped(float(has_no_gradient.float().mean()))
        sizes = (rollout.token_type == LATENT).sum(1, keepdim=True) * self.steps
        is_latent_action = torch.arange(int(sizes.max()), device=device) < sizes
        return Experience(
            traces,
            examples,
            rollout,
            graded,
            values,
            total,
            advantages,
            (rollout.text_decisions | rollout.stop_decisions) & is_counted[:, None],
            is_latent_action & is_counted[:, None],
            seed=seed,
            num_failed=sum(has_failed),
        )

    def decode(self, traces: list[Trace], examples: list[EncodedExample], seed: int) -> Rollout:
        """A rollout of every row, of which ``num_generations`` one after the other have the same prompt."""
        rl, reasoner = self.rl, self.reasoner

        def collate(rows: list[EncodedExample]) -> MixedBatch:
            return collate_examples(reasoner.processor, rows).to(reasoner.device)

        config = GenerationConfig(
            max_new_tokens=rl.max_completion_length,
            temperature=rl.temperature,
            seed=seed,
            max_spans=rl.max_spans or None,
            answer_prefix=reasoner.vocabulary.encode_text(rl.answer_prefix) if rl.answer_prefix else (),
            answer_budget=rl.answer_budget,
            **self.latent_options(),
        )
        if rl.completions_per_trajectory > 1:
            shared = {"completions": rl.completions_per_trajectory, "group_size": rl.num_generations}
            return generate_trajectories(reasoner, collate(examples), config, **shared)
        if not 0 < rl.num_slots < len(examples):
            return generate(reasoner, collate(examples), config, group_size=rl.num_generations)
        requests = [Request(trace, number) for number, trace in enumerate(traces)]
        found: dict[int, tuple[Rollout, int]] = {}
        for done in decode_requests(
            reasoner, requests, config, rl.num_slots, lambda some: collate([examples[r.number] for r in some])
        ):
            found[done.request.number] = done.rollout, done.row
        return join_rollouts([found[number] for number in range(len(requests))], collate(examples))

    def next_seed(self, rank: int) -> int:
        """The seed of the next rollouts. It differs between batches and processes."""
        return hash((self.config.seed, self.num_batches, rank)) % 2**31

    def latent_options(self) -> dict:
        """How latents are sampled, as options of :func:`generate`."""
        return {"latent_policy": self.policy, "latents_per_span": self.rl.latents_per_span or None}

    def grade(self, rollout: Rollout, row: int, item: Item, measured: dict[str, float], step: int = 0) -> Graded:
        """One rollout as rewards receive it."""
        text = rollout.text(row, self.reasoner.vocabulary)
        token_type, scores = rollout.token_type[row], self.task.score(text, item.meta)
        score = float(abstains(text) if variant(item) == HIDDEN else next(iter(scores.values())))
        return Graded(
            item,
            text,
            score,
            int((token_type == TEXT).sum()),
            int((token_type == LATENT).sum()),
            len(rollout.spans_of(row)),
            rollout.finish_reasons[row] == "end" and not rollout.forced_answer[row],
            self.rl.max_completion_length,
            scores,
            measured,
            step,
        )

    def load_counters(self, num_batches: int, pass_rates: dict, failed_rewards: Sequence[str]) -> None:
        """Continue from what an interrupted run has counted."""
        self.num_batches, self.failed_rewards = num_batches, set(failed_rewards)
        self.pass_rates.load_state_dict(pass_rates)

    def collect(self, items: Sequence[Item], rank: int = 0, step: int = 0) -> Collected:
        """Rollouts to learn from; see :meth:`sample` for the arguments.

        With ``dynamic_sampling``, items are tried until ``num_prompts`` groups have a gradient. The sampler
        ``pass_rate`` then takes more items at once, by the recent share of groups without a gradient.
        """
        n, g = self.num_prompts, self.rl.num_generations
        kept, metrics, unsolved, start = [], [], [], 0
        factor = self.pass_rates.oversampling if self.rl.dynamic_sampling and self.rl.sampler == "pass_rate" else 1
        while start < len(items) and sum(len(x.traces) for x in kept) < n * g:
            batch = items[start : start + math.ceil(n * factor)]
            experience, start = self.sample(batch, rank, step), start + len(batch)
            metrics.append(
                rollout_metrics(experience, self.reasoner, g) | {"rewards/failed": float(experience.num_failed)}
            )
            unsolved += [
                item
                for i, item in enumerate(batch)
                if not any(x.is_correct for x in experience.graded[i * g : (i + 1) * g])
            ]
            if self.rl.dynamic_sampling:
                has_gradient = experience.advantages.view(-1, g).abs().amax(1) > MIN_ADVANTAGE
                rows = has_gradient.repeat_interleave(g).nonzero()[:, 0].tolist()
                kept += [experience.select(rows, self.reasoner)] if rows else []
            else:
                kept.append(experience)
        self.last = experience
        return Collected(kept, list(items[:start]), unsolved, metrics)
