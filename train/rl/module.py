"""The Lightning module of reinforcement learning: it updates the policy on what a sampler of rollouts has collected.

Text tokens and the decision to sketch are actions. ``rl.latent_policy`` sets whether latents are actions too. The
rollouts are in train/rl/rollout_sampler.py, the losses in train/rl/losses.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch

from latent_reason.model.batch import LATENT, PAD, MixedBatch
from latent_reason.objectives import policy_gradient
from latent_reason.objectives.losses import loss_shares
from latent_reason.objectives.policy_gradient import PolicyObjective
from latent_reason.objectives.replay import replay
from latent_reason.objectives.rollout_states import rollout_states
from latent_reason.tasks import Item

from .. import sharding
from ..batch_sizes import rows_per_process
from ..config import RLConfig, RLTrainingConfig
from ..lit_modules import TrainingModule
from ..model_setup import build_objective
from .anchors import check_anchor
from .losses import LossContext, rollout_loss
from .rollout_sampler import MIN_ADVANTAGE, RolloutSampler
from .rollouts import Experience, token_weights

MAX_SKIPPED_BATCHES = 50  # in a row
BALANCE_DECAY = 0.9  # of the weight that balances latents and text


def aggregate(name: str, values: torch.Tensor) -> torch.Tensor:
    """One metric from its values (n,) in the parts of an update: the sum of losses, else the mean, smallest or largest
    value."""
    if name.startswith(("train/", "kl", "views/")):
        return values.sum()
    if name.endswith(("_max", "_gap")):
        return values.max()
    if name.startswith("grad_norm/"):  # of disjoint rows
        return values.square().sum().sqrt()
    return values.min() if name.endswith("_min") else values.mean()


class RLModule(TrainingModule):
    """Policy optimization of a reasoner on items of a task. Optimization is manual: a batch of rollouts takes one
    backward pass for each micro batch, and may take several optimizer steps."""

    def __init__(self, reasoner, task, config: RLTrainingConfig, reference=None, decoder=None, processes: int = 1):
        """``processes`` share the items of a batch."""
        sft = build_objective(config, reasoner, decoder)
        super().__init__(config.optim, sharding.ShardingOptions.of(config, sft))
        self.automatic_optimization = False
        self.reasoner, self.config = reasoner, config
        self.sft = sft  # its loss on gold traces of rl.sft_items
        objective = replace(policy_gradient.OBJECTIVES[config.rl.loss_type], dual=config.rl.dual_clip or None)
        num_prompts = rows_per_process(config, processes)
        self.sampler = RolloutSampler(reasoner, task, config, objective, num_prompts, reference, decoder)
        check_anchor(config.rl, reasoner, decoder)
        self.counts = self.sampler.counts
        self.num_skipped = self.num_tokens = 0
        self.grad_norm: torch.Tensor | None = None  # at the last optimizer step
        self.balance: float | None = None  # weight at which latents and text have gradients of the same norm

    @property
    def rl(self) -> RLConfig:
        return self.sampler.rl

    @property
    def objective(self) -> PolicyObjective:
        """How rewards become a loss."""
        return self.sampler.objective

    @property
    def reference(self):
        """The model at the start of training, or None."""
        return self.sampler.context.reference

    @property
    def policy(self):
        """How latents are sampled; None for a method that does not sketch."""
        return self.sampler.policy

    # -- rollouts --------------------------------------------------------------------------------------------------
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
                    x.latent_actions, self.rl.max_completion_length * max(self.sampler.steps, 1)
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
        self.log_dict(means | {"num_tokens": float(self.num_tokens)}, batch_size=self.sampler.num_prompts)
        self.log("train/reward", means["reward"], prog_bar=True, batch_size=self.sampler.num_prompts)

    # -- updates ---------------------------------------------------------------------------------------------------
    def training_step(self, items, index):
        with self.whole_weights():
            found = self.sampler.collect(items, self.global_rank, self.global_step)
            experiences = self.set_weights(found.experiences)
        self.log_rollout_metrics(found.metrics, len(found.unsolved) / len(found.tried))
        # AHPO's gate (MM-HELIX 2510.08540)
        sft_items = found.unsolved if self.rl.sft_items == "unsolved" else found.tried
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
        if self.rl.latent_weight == "balanced" and self.balance is None:
            self.update_balance([self.gradient_norms(batch) for batch in batches])
        for _ in range(self.rl.num_iterations):
            parts: list[dict[str, torch.Tensor]] = []
            self.update(self.losses(batches, gold, shares, max_count - count, parts))
            if self.rl.latent_weight == "balanced":
                self.update_balance(parts)
            for name in {name for batch_parts in parts for name in batch_parts}:
                values = torch.stack([batch_parts[name].detach() for batch_parts in parts if name in batch_parts])
                is_loss = name.startswith("train/")
                self.log(name, aggregate(name, values), batch_size=len(items), prog_bar=is_loss)

    def gradient_norms(self, batch: Experience) -> dict[str, torch.Tensor]:
        """The norms of the gradients of a micro batch, without its graph."""
        _, parts = self.loss(batch)
        return {name: value.detach() for name, value in parts.items() if name.startswith("grad_norm/")}

    def update_balance(self, parts: list[dict[str, torch.Tensor]]) -> None:
        """Move the weight of latents toward the one at which both gradients, over all processes, have the same norm.
        ``parts`` are those of all micro batches of an update. Every process must call it."""
        zero = torch.zeros((), device=self.reasoner.device)
        norms = torch.stack(
            [
                torch.stack(
                    [part[f"grad_norm/{name}"].detach().float() for part in parts if f"grad_norm/{name}" in part]
                    or [zero]
                )
                .square()
                .sum()
                for name in ("text", "latent")
            ]
        )
        text, latent = self.gather_values(norms).sum(0).sqrt().tolist()
        if text > 0 and latent > 0:
            old = math.log(self.balance) if self.balance else math.log(text / latent)
            self.balance = math.exp(BALANCE_DECAY * old + (1 - BALANCE_DECAY) * math.log(text / latent))
        self.log("train/latent_weight", self.latent_weight)

    @property
    def latent_weight(self) -> float:
        """The weight of the policy loss of latents."""
        return (self.balance or 0.0) if self.rl.latent_weight == "balanced" else self.rl.latent_weight

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
        """One optimizer step: one backward pass for each loss, before the next loss is computed. The gradients add up."""
        optimizer = self.optimizers()
        optimizer.zero_grad()
        for loss in losses:
            self.monitor.add_loss(loss)
            self.manual_backward(loss)
        optimizer.step()
        self.log("train/grad_norm", self.grad_norm)
        self.lr_schedulers().step()
        if not self.monitor.num_skipped_in_a_row:
            self.on_optimizer_step()

    def on_optimizer_step(self):
        self.end_step(self.sft)

    def clip_grad_norm(self, max_norm: float) -> torch.Tensor:
        """As in supervised training, but those of the head and all others apart, so that neither takes the other's
        step."""
        head = {id(p) for p in self.reasoner.head.parameters()} if self.reasoner.can_sketch else set()
        graded = [p for p in self.parameters() if p.grad is not None]
        parts = [[p for p in graded if (id(p) in head) == own] for own in (False, True)]
        norms = [sharding.clip_grad_norm(part, max_norm) for part in parts if part]
        return torch.stack(norms).norm() if norms else torch.zeros((), device=self.device)

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
            "batches": self.sampler.num_batches,
            "balance": self.balance,
            "batches_without_gradient": self.num_skipped,
            "tokens": self.num_tokens,
            "pass_rates": self.sampler.pass_rates.state_dict(),
            "failed_rewards": sorted(self.sampler.failed_rewards),
        }

    def load_counters(self, values):
        super().load_counters(values)
        self.balance = values.get("balance")
        self.num_skipped, self.num_tokens = values["batches_without_gradient"], values["tokens"]
        self.sampler.load_counters(values["batches"], values["pass_rates"], values["failed_rewards"])

    def has_ended_step(self, batch_index):
        return True

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
            traces = [self.sampler.task.trace(item, self.sampler.mode) for item in items]
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
        size = self.config.data.micro_batch_size or max(len(rows), 1)
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
            loss = self.rl.sft_coef * decay * terms.scaled(shares).total + self.zero_loss()
            if self.sharded and self.policy is not None and self.policy.has_path:
                loss = loss + self.idle_passes(1)  # a replay, which another process may make now, takes two
            yield loss
        for _ in range(num_idle):
            yield self.idle_loss()

    def idle_loss(self) -> torch.Tensor:
        """A zero loss for a process that has fewer batches than others. FSDP2 needs the passes through the model."""
        if not self.sharded:
            return self.zero_loss()
        passes = 2 if self.policy is not None and self.policy.has_path else 1
        return self.idle_passes(passes) + self.zero_loss()

    def idle_passes(self, number: int) -> torch.Tensor:
        """Zero, from so many passes through the model: FSDP2 gathers its weights only together with all processes."""
        rollout = self.sampler.last.select([0], self.reasoner).rollout
        return 0 * sum(self.reasoner(rollout_states, rollout).sum() for _ in range(number))

    def loss_context(self) -> LossContext:
        return LossContext(
            self.reasoner,
            self.reference,
            self.sampler.context.decoder,
            self.policy,
            self.objective,
            self.rl,
            self.sampler.latent_options(),
            self.global_step / max(self.config.optim.max_steps, 1),
            [self.config.seed, self.sampler.num_batches, self.global_rank],
            self.latent_weight,
        )

    def loss(self, experience: Experience) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss of a micro batch (scalar), and its logged parts."""
        return rollout_loss(self.loss_context(), experience)

    def validation_step(self, batch, index):
        """Held-out items are decoded by a callback, SketchPanel."""
