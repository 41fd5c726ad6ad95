"""The Lightning module of reinforcement learning: sample rollouts, compute their advantages, update the policy.

Text tokens and the decision to sketch are actions. ``rl.latent_policy`` sets whether latents are actions too. The
losses are in train/rl/losses.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch

from latent_reason.decoding.engine import generate
from latent_reason.decoding.rollout import Rollout
from latent_reason.model.batch import LATENT, PAD, TEXT, MixedBatch
from latent_reason.objectives import policy_gradient
from latent_reason.objectives.losses import loss_shares
from latent_reason.objectives.packing import collate_examples
from latent_reason.objectives.replay import replay
from latent_reason.tasks import Item

from .. import sharding
from ..config import RLTrainingConfig
from ..lit_modules import TrainingModule
from ..model_setup import build_objective
from ..traces import mode_of
from . import reward_inputs, rewards
from .evidence_triples import HIDDEN, abstains, variant
from .losses import LossContext, rollout_loss
from .reward_inputs import RewardContext
from .rewards import Graded
from .rollouts import Experience, build_policy, encode_prompts, rollout_metrics, token_weights
from .samplers import PassRates

MAX_SKIPPED_BATCHES = 50  # in a row
MIN_ADVANTAGE = 1e-6  # smaller advantages give no gradient


def have_equal_weights(parameters: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return len(parameters) == len(others) and all(map(torch.equal, parameters, others))


def aggregate(name: str, values: torch.Tensor) -> torch.Tensor:
    """One metric from its values (n,) in the parts of an update: the sum of losses, else the mean, smallest or largest
    value."""
    if name.startswith(("train/", "kl", "views/")):
        return values.sum()
    if name.endswith(("_max", "_gap")):
        return values.max()
    return values.min() if name.endswith("_min") else values.mean()


class RLModule(TrainingModule):
    """Policy optimization of a reasoner on items of a task. Optimization is manual: a batch of rollouts takes one
    backward pass for each micro batch, and may take several optimizer steps."""

    def __init__(self, reasoner, task, config: RLTrainingConfig, reference=None, decoder=None):
        sft = build_objective(config, reasoner, decoder)
        super().__init__(config.optim, sharding.ShardingOptions.of(config, sft))
        self.automatic_optimization = False
        self.reasoner, self.task, self.config, self.rl = reasoner, task, config, config.rl
        self.mode, self.policy = mode_of(config.method.name), build_policy(reasoner, config, task)
        self.sft = sft  # its loss on gold traces of rl.sft_items
        self.objective = replace(policy_gradient.OBJECTIVES[config.rl.loss_type], dual=config.rl.dual_clip or None)
        rewards.check_weights(config.rl.rewards)
        self.rewards = {name: (rewards.find(name), weight) for name, weight in config.rl.rewards.items()}
        # in a list, so that the reference model and the decoder are no submodules
        self.reward_context = [RewardContext(reasoner, reference, decoder, task, self.mode)]
        self.reward_inputs = sorted(
            {name for reward, _ in self.rewards.values() for name in getattr(reward, "wants", ())}
        )
        self.pass_rates = PassRates(list(task.levels))
        self.can_cache_features = not any(p.requires_grad for p in reasoner.backbone.vision_parameters) and (
            reference is None
            or have_equal_weights(reasoner.backbone.vision_parameters, reference.backbone.vision_parameters)
        )
        self.last_rollouts: Experience | None = None
        self.failed_rewards: set[str] = set()  # a warning was printed for each
        self.num_batches = self.num_skipped = self.num_tokens = 0
        self.num_accumulated = 0  # batches since the last optimizer step
        self.grad_norm: torch.Tensor | None = None  # at the last optimizer step

    @property
    def reference(self):
        """The model at the start of training, or None."""
        return self.reward_context[0].reference

    @property
    def steps(self) -> int:
        """Actions of one latent."""
        return self.policy.steps if self.policy is not None else 0

    # -- rollouts --------------------------------------------------------------------------------------------------
    def sample_rollouts(self, items: Sequence[Item]) -> Experience:
        """Sample ``num_generations`` rollouts for each item, grade them, and compute advantages within groups."""
        rl, g, device, seed = self.rl, self.rl.num_generations, self.reasoner.device, self.rollout_seed()
        traces = [self.task.trace(item, self.mode) for item in items]
        examples = encode_prompts(traces, self.reasoner, self.can_cache_features)
        traces, examples = ([x for x in rows for _ in range(g)] for rows in (traces, examples))
        answer_prefix = self.reasoner.vocabulary.encode_text(rl.answer_prefix) if rl.answer_prefix else ()
        rollout = generate(
            self.reasoner,
            collate_examples(self.reasoner.processor, examples).to(self.reasoner.device),
            max_new_tokens=rl.max_completion_length,
            temperature=rl.temperature,
            seed=seed,
            max_spans=rl.max_spans or None,
            answer_prefix=answer_prefix,
            answer_budget=rl.answer_budget,
            group_size=g,
            **self.latent_options(),
        )
        self.num_batches += 1
        items = [item for item in items for _ in range(g)]
        measured = {
            name: reward_inputs.find(name)(self.reward_context[0], rollout, items) for name in self.reward_inputs
        }
        graded = [
            self.grade(rollout, row, item, {name: values[row] for name, values in measured.items()})
            for row, item in enumerate(items)
        ]
        groups = [graded[start : start + g] for start in range(0, len(graded), g)]
        values, has_failed = rewards.compute_all(self.rewards, groups, self.failed_rewards)
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

    def rollout_seed(self) -> int:
        """The seed of the next rollouts. It differs between batches and processes."""
        return hash((self.config.seed, self.num_batches, self.global_rank)) % 2**31

    def latent_options(self) -> dict:
        """How latents are sampled, as options of :func:`generate`."""
        return {"latent_policy": self.policy, "latents_per_span": self.rl.latents_per_span or None}

    def grade(self, rollout: Rollout, row: int, item: Item, measured: dict[str, float]) -> Graded:
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
            self.global_step,
        )

    def set_weights(self, experiences: list[Experience]) -> list[Experience]:
        """Set the loss weights of all actions, normalized over all processes, whose gradients are averaged."""
        size = torch.zeros(2, device=self.reasoner.device)
        for x in experiences:
            x.weights, text_size = self.objective.average(x.actions, self.rl.max_completion_length)
            if self.rl.max_token_weight:
                x.weights = x.weights * token_weights(
                    self.reasoner, x.rollout, self.rl.num_generations, self.rl.max_token_weight
                )
            if self.policy is not None and self.policy.uses_head_loss:  # an average over the latents to imitate
                row_weights = self.policy.weight(x.advantages, self.is_best(x)) * (x.advantages.abs() > MIN_ADVANTAGE)
                x.latent_weights = row_weights[:, None] * x.latent_actions
                latent_size = x.latent_weights.sum()
            else:
                x.latent_weights, latent_size = self.objective.average(
                    x.latent_actions, self.rl.max_completion_length * max(self.steps, 1)
                )
            size = size + torch.stack([text_size, latent_size])
        text_size, latent_size = self.gather_values(size).float().mean(0).clamp_min(1e-8)
        for x in experiences:
            x.weights, x.latent_weights = x.weights / text_size, x.latent_weights / latent_size
        return experiences

    def is_best(self, experience: Experience) -> torch.Tensor:
        """(R,) rollouts that are correct and have the largest total reward of their group."""
        g, total = self.rl.num_generations, experience.total
        largest = total.view(-1, g).amax(1).repeat_interleave(g)
        is_correct = torch.tensor([x.is_correct for x in experience.graded], device=total.device)
        return (total >= largest - MIN_ADVANTAGE) & is_correct

    def collect(self, items: Sequence[Item]) -> tuple[list[Experience], list[Item], list[Item]]:
        """Rollouts to learn from, the items that were tried, and those that no rollout solved.

        With ``dynamic_sampling``, items are tried until ``num_prompts`` groups have a gradient. The sampler
        ``pass_rate`` then takes more items at once, by the recent share of groups without a gradient.
        """
        n, g = self.rl.num_prompts, self.rl.num_generations
        kept, metrics, unsolved, start = [], [], [], 0
        factor = self.pass_rates.oversampling if self.rl.dynamic_sampling and self.rl.sampler == "pass_rate" else 1
        while start < len(items) and sum(len(x.traces) for x in kept) < n * g:
            batch = items[start : start + math.ceil(n * factor)]
            experience, start = self.sample_rollouts(batch), start + len(batch)
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
        self.last_rollouts = experience
        self.log_rollout_metrics(metrics, len(unsolved) / start)
        return self.set_weights(kept), list(items[:start]), unsolved

    def log_rollout_metrics(self, metrics: list[dict[str, float]], unsolved: float) -> None:
        """Log means over the rollouts of all processes. ``unsolved`` is the share of items that no rollout solved."""
        metrics = [batch | {"anchor/gate_rate": unsolved} for batch in metrics]
        if self.num_processes > 1:
            parts: list = [None] * self.num_processes
            torch.distributed.all_gather_object(parts, metrics)
            metrics = [batch for part in parts for batch in part]
        self.num_tokens += sum(int(batch["num_tokens"]) for batch in metrics)
        means = {
            name: sum(batch[name] for batch in metrics if name in batch) / sum(name in batch for batch in metrics)
            for name in sorted({name for batch in metrics for name in batch})
        }
        self.log_dict(means | {"num_tokens": float(self.num_tokens)}, batch_size=self.rl.num_prompts)
        self.log("train/reward", means["reward"], prog_bar=True, batch_size=self.rl.num_prompts)

    # -- updates ---------------------------------------------------------------------------------------------------
    def training_step(self, items, index):
        started = time.monotonic()
        with self.whole_weights():
            experiences, tried, unsolved = self.collect(items)
        sft_items = unsolved if self.rl.sft_items == "unsolved" else tried  # AHPO's gate (MM-HELIX 2510.08540)
        sft_items = sft_items if self.rl.sft_coef else []
        has_gradient = any(float(x.advantages.abs().max()) > MIN_ADVANTAGE for x in experiences)
        batches = [batch for x in experiences for batch in self.micro_batches(x)] if has_gradient else []
        latents = [int((batch.rollout.token_type == LATENT).sum()) for batch in batches]
        count = len(batches) + bool(sft_items)
        counts = self.gather_values(torch.tensor([count, sum(latents)], device=self.reasoner.device))
        max_count = int(counts[:, 0].max())  # all processes take as many backward passes
        mean_latents = float(counts[:, 1].float().mean().clamp_min(1e-8))
        gold, shares = self.gold_batch(sft_items)
        for batch, n in zip(batches, latents, strict=True):
            batch.latent_share = n / mean_latents
        if not max_count:
            self.skip_batch()
            return
        self.num_skipped = 0
        if self.rl.num_iterations > 1:
            with torch.no_grad(), self.whole_weights():
                for batch in batches:
                    old = self.reasoner(replay, batch.rollout, self.policy, self.rl.temperature)
                    batch.old_log_probs, batch.old_latent_log_probs = old.text + old.stops, old.latents
        for _ in range(self.rl.num_iterations):
            parts: list[dict[str, torch.Tensor]] = []
            self.update(self.losses(batches, gold, shares, max_count - count, parts))
            for name in {name for batch_parts in parts for name in batch_parts}:
                values = torch.stack([batch_parts[name].detach() for batch_parts in parts if name in batch_parts])
                is_loss = name.startswith("train/")
                self.log(name, aggregate(name, values), batch_size=len(items), prog_bar=is_loss)
        self.log("step_time", time.monotonic() - started)

    def skip_batch(self) -> None:
        """Count a batch without a gradient.

        Raises:
            ValueError: too many such batches in a row.
        """
        self.num_skipped += 1
        self.log("rl/skipped", float(self.num_skipped))
        if self.num_skipped >= MAX_SKIPPED_BATCHES:
            raise ValueError(
                f"{MAX_SKIPPED_BATCHES} batches in a row gave no gradient: in every group all rewards are equal. Use "
                "items that the model solves sometimes, a larger rl.num_generations or a higher rl.temperature."
            )

    def update(self, losses: Iterable[torch.Tensor]) -> None:
        """One backward pass for each loss, before the next loss is computed. The gradients add up. Every
        ``gradient_accumulation_steps`` calls take one optimizer step."""
        optimizer = self.optimizers()
        if not self.num_accumulated:
            optimizer.zero_grad()
        for loss in losses:
            self.monitor.add_loss(loss)
            self.manual_backward(loss / self.optim.gradient_accumulation_steps)
        self.num_accumulated = (self.num_accumulated + 1) % self.optim.gradient_accumulation_steps
        if self.num_accumulated:
            return
        optimizer.step()
        self.log("train/grad_norm", self.grad_norm)
        self.lr_schedulers().step()
        if not self.monitor.num_skipped_in_a_row:
            self.on_optimizer_step()

    def on_optimizer_step(self):
        self.end_step(self.sft)

    def on_before_optimizer_step(self, optimizer):
        """Clip here, where gradients are unscaled also with float16 mixed precision. The norm is not logged here,
        because that would reset what the first training step has logged."""
        self.grad_norm = self.clip_grad_norm(self.optim.max_grad_norm)
        self.skip_step_if_not_finite(self.grad_norm)

    def current_batches(self):
        return []  # rollouts are no batches of examples

    # -- what a resumed run needs ----------------------------------------------------------------------------------
    def counters(self):
        return super().counters() | {
            "batches": self.num_batches,
            "batches_without_gradient": self.num_skipped,
            "tokens": self.num_tokens,
            "pass_rates": self.pass_rates.state_dict(),
            "failed_rewards": sorted(self.failed_rewards),
        }

    def load_counters(self, values):
        super().load_counters(values)
        self.num_batches, self.num_tokens = values["batches"], values["tokens"]
        self.num_skipped, self.failed_rewards = values["batches_without_gradient"], set(values["failed_rewards"])
        self.pass_rates.load_state_dict(values["pass_rates"])

    def has_ended_step(self, batch_index):
        return not self.num_accumulated

    def teacher(self):
        return self.sft.teacher_module(self.reasoner), self.sft.has_moving_teacher

    def frozen_parameters(self):
        yield from super().frozen_parameters()
        if self.reference is not None:
            yield from ((f"reference.{name}", p) for name, p in self.reference.named_parameters())

    def gold_batch(self, items: Sequence[Item]) -> tuple[MixedBatch | None, dict[str, torch.Tensor]]:
        """Gold traces of the items as a batch (None: no items), and what each part of its loss counts for, so that the
        mean over processes is the mean over all examples. Every process must call it."""
        if not self.rl.sft_coef:
            return None, {}
        gold, weights = (
            None,
            {name: torch.zeros((), device=self.reasoner.device) for name in ("text", "latent", "stop")},
        )
        if items:
            traces = [self.task.trace(item, self.mode) for item in items]
            gold = self.sft.collate(self.reasoner, traces).to(self.reasoner.device)
            weights = {name: w.float() for name, w in self.sft.loss_weights(self.reasoner, gold).items()}
        shares = loss_shares(weights, self.sum_over_processes(weights))
        return gold, {name: share * self.num_processes for name, share in shares.items()}

    def gather_values(self, values: torch.Tensor) -> torch.Tensor:
        """(processes, n) from the values (n,) of each process. Every process must call it."""
        return self.all_gather(values).view(self.num_processes, -1) if self.num_processes > 1 else values[None]

    def micro_batches(self, experience: Experience) -> list[Experience]:
        """Micro batches of rollouts of similar length. Rollouts without a gradient are left out."""
        rows = (experience.rollout.token_type != PAD).sum(1).argsort().tolist()
        if self.reference is None and not self.rl.perturbations:
            rows = [row for row in rows if abs(float(experience.advantages[row])) > MIN_ADVANTAGE]
        size = self.rl.micro_batch_size or max(len(rows), 1)
        return [experience.select(rows[start : start + size], self.reasoner) for start in range(0, len(rows), size)]

    def losses(
        self,
        batches: list[Experience],
        gold: MixedBatch | None,
        shares: dict[str, torch.Tensor],
        num_idle: int,
        parts: list,
    ) -> Iterator[torch.Tensor]:
        """The losses of one update, one after the other. Their logged parts are appended to ``parts``.

        Args:
            gold, shares: what :meth:`gold_batch` returns.
            num_idle: zero losses at the end, so that all processes take as many backward passes.
        """
        for batch in batches:
            loss, batch_parts = self.loss(batch)
            parts.append(batch_parts)
            yield loss + self.zero_loss()
        if gold is not None:
            terms = self.reasoner(self.sft.loss, gold)
            parts.append({"train/anchor": terms.total})
            decay = math.exp(-self.global_step / self.rl.sft_decay_steps) if self.rl.sft_decay_steps else 1.0
            yield self.rl.sft_coef * decay * terms.scaled(shares).total + self.zero_loss()
        for _ in range(num_idle):
            yield self.idle_loss()

    def idle_loss(self) -> torch.Tensor:
        """A zero loss for a process that has fewer batches than others. FSDP2 needs a pass through the model."""
        if not self.sharded:
            return self.zero_loss()
        rollout = self.last_rollouts.select([0], self.reasoner).rollout
        return 0 * self.reasoner(replay, rollout).text.sum() + self.zero_loss()

    def loss_context(self) -> LossContext:
        return LossContext(
            self.reasoner,
            self.reference,
            self.policy,
            self.objective,
            self.rl,
            self.latent_options(),
            self.global_step / max(self.config.optim.max_steps, 1),
            [self.config.seed, self.num_batches, self.global_rank],
        )

    def loss(self, experience: Experience) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss of a micro batch (scalar), and its logged parts."""
        return rollout_loss(self.loss_context(), experience)

    def validation_step(self, batch, index):
        """Held-out items are decoded by a callback, SketchPanel."""
