"""Reinforcement learning: rollouts, rule-based rewards, and one parallel pass that scores the rollouts again.

    python -m train.rl --config train/recipes/rl_frozenlake.yaml --init_from CHECKPOINT --run_name my-run

Text tokens and the decision to sketch are actions; ``rl.latent_policy`` says how latents are
(latent_reason/objectives/latent_policies.py). ``rl.loss_type`` is a row of latent_reason/objectives/policy_gradient.py.
Not here: rewards that are models.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from latent_reason.decoding.engine import generate
from latent_reason.decoding.rollout import Rollout
from latent_reason.model.batch import LATENT, PAD, TEXT
from latent_reason.objectives import latent_policies, policy_gradient
from latent_reason.objectives.packing import collate_examples
from latent_reason.objectives.replay import Replay, replay
from latent_reason.tasks import Item

from .. import sharding
from ..callbacks import Alarms, Dependence, RolloutPanel, SketchPanel
from ..config import RLTrainingConfig
from ..data import make_task, mode_of
from ..lit_modules import TrainingModule
from ..model_setup import build_objective, choose_attention, freeze_all_but, prepare_model
from ..trainer import console, fit, make_saver, run_training, train_stages
from . import perturbations, reward_inputs, rewards
from .evidence_triples import HIDDEN, abstains, variant
from .reward_inputs import Scene
from .rewards import Graded
from .rollouts import Experience, asked, differing, figures, policy_of
from .samplers import PassRates, Prompts

PATIENCE = 50  # batches in a row that may teach nothing
DULL = 1e-6  # an advantage no greater than this teaches nothing


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


class RLModule(TrainingModule):
    """Policy optimization of a reasoner on items of a task. Optimization is manual: a batch of rollouts takes several
    backward passes, one after another to save memory, and may take several optimizer steps."""

    def __init__(self, reasoner, task, config: RLTrainingConfig, reference=None, decoder=None):
        super().__init__(config.optim)
        self.automatic_optimization = False
        self.reasoner, self.task, self.config, self.rl = reasoner, task, config, config.rl
        self.mode, self.policy = mode_of(config.method.name), policy_of(reasoner, config, task)
        self.sft = build_objective(config, reasoner, decoder)  # its loss on gold traces of rl.sft_items
        self.objective = replace(policy_gradient.OBJECTIVES[config.rl.loss_type], dual=config.rl.dual_clip or None)
        rewards.check(config.rl.rewards)
        self.paid = {name: (rewards.find(name), weight) for name, weight in config.rl.rewards.items()}
        self._scene = [Scene(reasoner, reference, decoder, task, self.mode)]  # in a list: no submodules
        self.wanted = sorted({name for reward, _ in self.paid.values() for name in getattr(reward, "wants", ())})
        self.rates = PassRates(list(task.levels))
        frozen = not any(p.requires_grad for p in reasoner.backbone.vision_parameters)
        self.sees = frozen and (
            reference is None or same(reasoner.backbone.vision_parameters, reference.backbone.vision_parameters)
        )
        self.shown: Experience | None = None  # the last rollouts
        self.warned: set[str] = set()  # rewards that have failed
        self.batches = self.idle = self.tokens = 0
        self.accumulated = 0  # batches whose gradients wait for an optimizer step
        self.grad_norm: torch.Tensor | None = None  # of the last step

    def after_step(self):
        self.sft.on_optimizer_step(self.reasoner)

    @property
    def reference(self):
        """The model that training began with, where it is kept."""
        return self._scene[0].reference

    @property
    def steps(self) -> int:
        """Actions that a latent is made of."""
        return self.policy.steps if self.policy is not None else 0

    # -- experience ------------------------------------------------------------------------------------------------
    def experience(self, items: Sequence[Item]) -> Experience:
        """Roll out ``num_generations`` times for each item, grade, and compare within groups."""
        rl, g, device, seed = self.rl, self.rl.num_generations, self.reasoner.device, self.seed()
        traces = [self.task.trace(item, self.mode) for item in items]
        rows = asked(traces, self.reasoner, self.sees)
        traces, rows = ([one for one in some for _ in range(g)] for some in (traces, rows))
        opening = self.reasoner.vocabulary.encode_text(rl.answer_prefix) if rl.answer_prefix else ()
        rollout = generate(
            self.reasoner,
            collate_examples(self.reasoner.processor, rows).to(self.reasoner.device),
            max_new_tokens=rl.max_completion_length,
            temperature=rl.temperature,
            seed=seed,
            max_spans=rl.max_spans or None,
            answer_prefix=opening,
            answer_budget=rl.answer_budget,
            **self.drawn(),
        )
        self.batches += 1
        items = [item for item in items for _ in range(g)]
        measured = {name: reward_inputs.find(name)(self._scene[0], rollout, items) for name in self.wanted}
        graded = [
            self.grade(rollout, row, item, {name: values[row] for name, values in measured.items()})
            for row, item in enumerate(items)
        ]
        by_group = [graded[at : at + g] for at in range(0, len(graded), g)]
        earned, failed = self.pay(by_group)
        earned = {name: torch.tensor(values, device=device) for name, values in earned.items()}
        total = sum(weight * earned[name] for name, (_, weight) in self.paid.items())
        groups = torch.arange(len(items) // g, device=device).repeat_interleave(g)
        counted = torch.tensor([one.ended or not rl.mask_truncated_completions for one in graded], device=device)
        counted &= ~torch.tensor(failed, device=device).repeat_interleave(g)
        advantages = torch.zeros_like(total)
        advantages[counted] = self.objective.advantage(total[counted], groups[counted])
        if rl.difficulty_weighting:
            advantages = advantages * torch.tensor([self.rates.weight(item.level) for item in items], device=device)
        for group in by_group:
            self.rates.note(group[0].item.level, sum(one.right for one in group) / g)
        self.rates.note_dull(float((advantages.view(-1, g).abs().amax(1) <= DULL).float().mean()))
        sizes = (rollout.token_type == LATENT).sum(1, keepdim=True) * self.steps
        made_of = torch.arange(int(sizes.max()), device=device) < sizes
        return Experience(
            traces,
            rows,
            rollout,
            graded,
            earned,
            total,
            advantages,
            (rollout.text_decisions | rollout.stop_decisions) & counted[:, None],
            made_of & counted[:, None],
            seed=seed,
            failed=sum(failed),
        )

    def pay(self, groups: list[list[Graded]]) -> tuple[dict[str, list[float]], list[bool]]:
        """Reward -> what each rollout earns; and whether that failed for its group, which then earns nothing and is
        left out. Each reward that fails is named once.

        Raises:
            Failed: it failed for all of them.
        """
        earned, failed = {name: [] for name in self.paid}, []
        for group in groups:
            try:
                found = {name: rewards.paid(name, reward, group) for name, (reward, _) in self.paid.items()}
            except rewards.Failed as error:
                failed.append(error)
                found = {name: [0.0] * len(group) for name in self.paid}
                if (said := str(error).partition(" on item ")[0]) not in self.warned:
                    console.print(
                        f"Warning: {error} Its group is left out (rewards/failed counts them).", style="yellow"
                    )
                    self.warned.add(said)
            else:
                failed.append(None)
            for name, values in found.items():
                earned[name] += values
        if all(failed):
            raise failed[0]
        return earned, [error is not None for error in failed]

    def seed(self) -> int:
        """That of the next rollouts, another in every batch of every process."""
        return hash((self.config.seed, self.batches, self.global_rank)) % 2**31

    def drawn(self) -> dict:
        """How latents are drawn, as options of :func:`generate`."""
        return {"latent_policy": self.policy, "latents_per_span": self.rl.latents_per_span or None}

    def grade(self, rollout: Rollout, row: int, item: Item, measured: dict[str, float]) -> Graded:
        text = rollout.text(row, self.reasoner.vocabulary)
        kind, scores = rollout.token_type[row], self.task.score(text, item.meta)
        score = float(abstains(text) if variant(item) == HIDDEN else next(iter(scores.values())))
        return Graded(
            item,
            text,
            score,
            int((kind == TEXT).sum()),
            int((kind == LATENT).sum()),
            len(rollout.spans_of(row)),
            rollout.finish_reasons[row] == "end" and not rollout.forced_answer[row],
            self.rl.max_completion_length,
            scores,
            measured,
            self.global_step,
        )

    def weighed(self, found: list[Experience]) -> list[Experience]:
        """Says what each action weighs among those of all processes, whose gradients are averaged."""
        size = torch.zeros(2, device=self.reasoner.device)
        for one in found:
            one.weights, words = self.objective.average(one.actions, self.rl.max_completion_length)
            if self.rl.max_token_weight:
                one.weights = one.weights * differing(
                    self.reasoner, one.rollout, self.rl.num_generations, self.rl.max_token_weight
                )
            if self.policy is not None and self.policy.uses_head_loss:  # an average over what is to be repeated
                taught = self.policy.weight(one.advantages, self.best(one)) * (one.advantages.abs() > DULL)
                one.latent_weights = taught[:, None] * one.latent_actions
                latents = one.latent_weights.sum()
            else:
                one.latent_weights, latents = self.objective.average(
                    one.latent_actions, self.rl.max_completion_length * max(self.steps, 1)
                )
            size = size + torch.stack([words, latents])
        words, latents = self.everywhere(size).float().mean(0).clamp_min(1e-8)
        for one in found:
            one.weights, one.latent_weights = one.weights / words, one.latent_weights / latents
        return found

    def best(self, found: Experience) -> torch.Tensor:
        """(R,) which are right and earn as much as any of their group."""
        most = found.total.view(-1, self.rl.num_generations).amax(1).repeat_interleave(self.rl.num_generations)
        return (found.total >= most - DULL) & torch.tensor([one.right for one in found.graded], device=most.device)

    def gathered(self, items: Sequence[Item]) -> tuple[list[Experience], list[Item], list[Item]]:
        """What a batch teaches, the items that were tried, and those of them that no rollout solved. With ``dynamic_sampling``,
        items are drawn until as many as a batch has teach something; by pass rate, ahead of that as many more as lately
        taught nothing."""
        found, told, unsolved, at, n, g = [], [], [], 0, self.rl.num_prompts, self.rl.num_generations
        ahead = self.rates.ahead if self.rl.dynamic_sampling and self.rl.sampler == "pass_rate" else 1
        while at < len(items) and sum(len(one.traces) for one in found) < n * g:
            some = items[at : at + math.ceil(n * ahead)]
            one, at = self.experience(some), at + len(some)
            told.append(figures(one, self.reasoner, g) | {"rewards/failed": float(one.failed)})
            unsolved += [
                item for i, item in enumerate(some) if not any(each.right for each in one.graded[i * g : (i + 1) * g])
            ]
            if self.rl.dynamic_sampling:
                live = one.advantages.view(-1, g).abs().amax(1) > DULL
                rows = live.repeat_interleave(g).nonzero()[:, 0].tolist()
                found += [one.part(rows, self.reasoner)] if rows else []
            else:
                found.append(one)
        self.shown = one
        self.tell(told, len(unsolved) / at)
        return self.weighed(found), list(items[:at]), unsolved

    def tell(self, told: list[dict[str, float]], unsolved: float) -> None:
        """Log the figures of rollouts, as means over those of all processes."""
        told = [each | {"anchor/gate_rate": unsolved} for each in told]
        if self.processes > 1:
            parts: list = [None] * self.processes
            torch.distributed.all_gather_object(parts, told)
            told = [each for part in parts for each in part]
        self.tokens += sum(int(each["num_tokens"]) for each in told)
        means = {
            name: sum(each[name] for each in told if name in each) / sum(name in each for each in told)
            for name in sorted({name for each in told for name in each})
        }
        self.log_dict(means | {"num_tokens": float(self.tokens)}, batch_size=self.rl.num_prompts)
        self.log("train/reward", means["reward"], prog_bar=True, batch_size=self.rl.num_prompts)

    # -- learning --------------------------------------------------------------------------------------------------
    def update(self, losses: Iterable[torch.Tensor]) -> None:
        """One backward pass for each of the losses, which add up, before the next of them is computed. Every
        ``gradient_accumulation_steps`` calls take one optimizer step."""
        optimizer = self.optimizers()
        if not self.accumulated:
            optimizer.zero_grad()
        for loss in losses:
            self.manual_backward(loss / self.optim.gradient_accumulation_steps)
        self.accumulated = (self.accumulated + 1) % self.optim.gradient_accumulation_steps
        if self.accumulated:
            return
        optimizer.step()
        self.log("train/grad_norm", self.grad_norm)
        self.lr_schedulers().step()
        self.sft.on_optimizer_step(self.reasoner)

    def on_before_optimizer_step(self, optimizer):
        """Clip here: gradients are unscaled, with mixed precision in float16 too. Logging here would reset what the
        first training step has logged."""
        self.grad_norm = self.clip_grad_norm(self.optim.max_grad_norm)

    def training_step(self, items, index):
        began = time.monotonic()
        with sharding.whole(self.reasoner):
            found, tried, unsolved = self.gathered(items)
        anchored = unsolved if self.rl.sft_items == "unsolved" else tried  # AHPO's gate (MM-HELIX 2510.08540)
        anchored = anchored if self.rl.sft_coef else []
        live = any(float(one.advantages.abs().max()) > DULL for one in found)
        pieces = [piece for one in found for piece in self.pieces(one)] if live else []
        latents = [int((piece.rollout.token_type == LATENT).sum()) for piece in pieces]
        count = len(pieces) + bool(anchored)
        counts = self.everywhere(torch.tensor([count, sum(latents), len(anchored)], device=self.reasoner.device))
        most, (_, usual, all_anchored) = int(counts[:, 0].max()), counts.float().mean(0).clamp_min(1e-8).tolist()
        for piece, n in zip(pieces, latents, strict=True):
            piece.share = n / usual
        if not most:  # all processes go backward equally often
            self.idle += 1
            self.log("rl/skipped", float(self.idle))
            if self.idle >= PATIENCE:
                raise ValueError(
                    f"{PATIENCE} batches in a row taught nothing: in every group all rewards are equal. "
                    "Take items the model solves now and then, a larger rl.num_generations or a higher "
                    "rl.temperature."
                )
            return
        self.idle = 0
        if self.rl.num_iterations > 1:
            with torch.no_grad(), sharding.whole(self.reasoner):
                for piece in pieces:
                    old = self.reasoner(replay, piece.rollout, self.policy, self.rl.temperature)
                    piece.words, piece.latents = old.text + old.stops, old.latents
        for _ in range(self.rl.num_iterations):
            said: list[dict[str, torch.Tensor]] = []
            self.update(self.losses(pieces, anchored, len(anchored) / all_anchored, most - count, said))
            for name in {name for parts in said for name in parts}:
                values = torch.stack([parts[name].detach() for parts in said if name in parts])
                whole = (
                    values.sum()
                    if name.startswith(("train/", "kl", "views/"))
                    else (
                        values.max()
                        if name.endswith(("_max", "_gap"))
                        else values.min()
                        if name.endswith("_min")
                        else values.mean()
                    )
                )
                self.log(name, whole, batch_size=len(items), prog_bar=name.startswith("train/"))
        self.log("step_time", time.monotonic() - began)

    @property
    def processes(self) -> int:
        return self.trainer.world_size if self._trainer is not None else 1

    def everywhere(self, values: torch.Tensor) -> torch.Tensor:
        """(processes, n) of values (n,) that each process has; every process has to ask."""
        return self.all_gather(values).view(self.processes, -1) if self.processes > 1 else values[None]

    def pieces(self, found: Experience) -> list[Experience]:
        """What is scored again at a time, rows of similar length; those that teach nothing are not."""
        rows = (found.rollout.token_type != PAD).sum(1).argsort().tolist()
        if self.reference is None and not self.rl.perturbations:
            rows = [row for row in rows if abs(float(found.advantages[row])) > DULL]
        size = self.rl.micro_batch_size or max(len(rows), 1)
        return [found.part(rows[at : at + size], self.reasoner) for at in range(0, len(rows), size)]

    def losses(
        self, pieces: list[Experience], anchored: list[Item], share: float, idle: int, said: list
    ) -> Iterator[torch.Tensor]:
        """One after the other, what an update adds up; their parts are noted in ``said``. ``share`` is how many times
        as many items are anchored here as in a process on average."""
        for piece in pieces:
            loss, parts = self.loss(piece)
            said.append(parts)
            yield loss + self.zero_loss() if self.sharded or not loss.requires_grad else loss
        if anchored:
            batch = self.sft.collate(self.reasoner, [self.task.trace(item, self.mode) for item in anchored])
            terms = self.reasoner(self.sft.loss, batch.to(self.reasoner.device))
            said.append({"train/anchor": terms.total})
            fade = math.exp(-self.global_step / self.rl.sft_decay_steps) if self.rl.sft_decay_steps else 1.0
            yield self.rl.sft_coef * fade * share * terms.total + self.zero_loss()
        for _ in range(idle):
            yield self.idling()

    def idling(self) -> torch.Tensor:
        """What a process goes backward through while others have more to learn from."""
        if not self.sharded:
            return self.zero_loss()
        return 0 * self.reasoner(replay, self.shown.part([0], self.reasoner).rollout).text.sum() + self.zero_loss()

    def loss(self, found: Experience) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """What an update minimises, and what is logged of it."""
        new = self.reasoner(replay, found.rollout, self.policy, self.rl.temperature)
        words = new.text + new.stops
        old = words.detach() if found.words is None else found.words
        text = policy_gradient.surrogate(self.objective, words, old, found.advantages, found.actions, found.weights)
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
        if found.words is None:  # nothing has moved since they were drawn
            drawn = found.rollout.sampled_log_prob
            parts["replay/max_logp_gap"] = ((words - drawn).abs() * found.actions).max()
        loss = text.loss
        if self.rl.perturbations:
            seen = self.view_loss(found, new.text)
            parts, loss = parts | seen, loss + seen["train/views"]
        if self.steps and len(new.latents):
            latent = self.latent_loss(found, new.latents)
            parts |= {
                "train/latent": latent.loss,
                "clip_ratio/latent": latent.low + latent.high,
                "ratio/latent_mean": latent.ratio_mean,
                "ratio/latent_max": latent.ratio_max,
            }
            loss = loss + self.rl.latent_weight * latent.loss
        if self.reference is not None:
            there = self.compared(found.rollout)
            far = (policy_gradient.distance(words, there.text + there.stops) * found.weights).sum()
            parts["kl"], loss = far, loss + self.rl.beta * far
            if len(new.states) and not self.reasoner.head.needs_context:
                parts |= self.drift(new.states, there.states)
            if self.steps and len(new.latents):
                apart = (
                    self.policy.kl(
                        self.reasoner.head, new.states, self.reference.head, there.states, found.rollout.policy_records
                    ).mean()
                    * found.share
                )
                parts["kl/latent"], loss = apart, loss + self.rl.latent_beta * apart
        return loss, parts

    @torch.no_grad()
    def compared(self, rollout: Rollout) -> Replay:
        """The rollout as the model scores it that training began with."""
        return replay(self.reference, rollout, None, self.rl.temperature)

    @torch.no_grad()
    def drift(self, states: torch.Tensor, there: torch.Tensor) -> dict[str, torch.Tensor]:
        """How far what the head gives has turned since training began, from one noise."""
        noise = torch.randn(
            len(states),
            1,
            self.reasoner.head.latent_width,
            device=states.device,
            generator=torch.Generator(states.device).manual_seed(0),
        ).to(states.dtype)
        now, then = (
            latent_policies.sample_head(one.head, h, noise).float()
            for one, h in ((self.reasoner, states), (self.reference, there))
        )
        return {
            "latents/cos_to_sft": F.cosine_similarity(now, then).mean(),
            "latents/norm_drawn": now.norm(dim=-1).mean(),
        }

    def view_loss(self, found: Experience, words: torch.Tensor) -> dict[str, torch.Tensor]:
        """What words lose, and should, or should not, under other pictures (train/rl/perturbations.py), as it enters the loss."""
        random = np.random.default_rng([self.config.seed, self.batches, self.global_rank])
        done = self.global_step / max(self.config.optim.max_steps, 1)
        kinds = {
            "necessity": (-1, partial(perturbations.masked, share=self.rl.perturbation_mask_ratio, random=random)),
            "robustness": (1, partial(perturbations.noisy, done=done, random=random)),
        }
        weights, entropy = found.weights * found.rollout.text_decisions, self.rl.perturbations.get("entropy", 0.0)
        parts = {"train/views": -entropy * (words * weights).sum()}
        for name, (sign, change) in kinds.items():
            if not self.rl.perturbations.get(name):
                continue
            traces = [perturbations.changed(trace, change) for trace in found.traces]
            other = perturbations.seen(
                self.reasoner,
                found.rollout,
                traces,
                self.rl.perturbation_latents,
                seed=found.seed,
                row_ids=found.rows,
                **self.drawn(),
            )
            with torch.set_grad_enabled(torch.is_grad_enabled() and entropy > 0):
                there = self.reasoner(replay, other, None, self.rl.temperature).text
            parts[f"views/{name}"] = (perturbations.apart(words, there.detach()) * weights).sum()
            parts["train/views"] = (
                parts["train/views"]
                - entropy * (there * weights).sum()
                + (sign * self.rl.perturbations[name] * parts[f"views/{name}"])
            )
        return parts

    def latent_loss(self, found: Experience, new: torch.Tensor) -> policy_gradient.Surrogate:
        """The surrogate of latents, whose log-probabilities (n, steps) are laid out row by row."""
        kind = found.rollout.token_type == LATENT
        sizes = kind.sum(1, keepdim=True) * self.steps
        filled = torch.arange(found.latent_actions.shape[1], device=new.device) < sizes

        def laid_out(values: torch.Tensor) -> torch.Tensor:
            return torch.zeros(filled.shape, dtype=values.dtype, device=new.device).masked_scatter(
                filled, values.flatten()
            )

        if self.policy.uses_head_loss:
            one = torch.ones((), device=new.device)
            return policy_gradient.Surrogate(-(laid_out(new) * found.latent_weights).sum(), 0 * one, 0 * one, one, one)
        old, bound = (
            new.detach() if found.latents is None else found.latents,
            self.rl.latent_epsilon or self.policy.clip,
        )
        ratio = (
            policy_gradient.token_ratio
            if self.objective.ratio is policy_gradient.sequence_ratio
            else self.objective.ratio
        )
        clipped = replace(self.objective, low=bound, high=bound, ratio=ratio)
        if self.rl.latent_importance_sampling_level == "span":
            first = kind & ~F.pad(kind, (1, 0))[:, :-1]
            number = (first.cumsum(1) - 1)[kind]  # the span of each latent
            blocks = torch.where(filled, laid_out(number[:, None].expand(-1, self.steps)), -1)
            clipped = replace(clipped, ratio=policy_gradient.span_ratio(blocks))
        return policy_gradient.surrogate(
            clipped, laid_out(new), laid_out(old), found.advantages, found.latent_actions, found.latent_weights
        )

    def validation_step(self, batch, index):
        """What is held out is decoded by the panel of sketches."""


def train(config: RLTrainingConfig, folder: Path):
    """Train a config into a folder, stage by stage; returns (reasoner, decoder). The checkpoint is ``folder/model``."""
    check_supported(config)
    config.rl.ref_model = config.rl.ref_model or config.init_from  # one for all stages
    return train_stages(config, folder, train_stage)


def check_supported(config: RLTrainingConfig) -> None:
    """Raises ValueError for keys that do not go together in reinforcement learning."""
    if not config.init_from:
        raise ValueError(
            "reinforcement learning starts from a model that solves an item now and then. Set --init_from "
            "checkpoints/NAME/model"
        )
    if config.rl.num_iterations > 1 and config.optim.gradient_accumulation_steps > 1:
        raise ValueError(
            "rl.num_iterations makes several optimizer steps of one batch, optim.gradient_accumulation_steps one step "
            "of several batches. Set one of them to 1."
        )
    if config.lora.dropout:
        raise ValueError("lora.dropout: rollouts and their replay must use the same weights. Set it to 0.")
    if config.precision in ("16-true", "bf16-true"):
        raise ValueError(
            f"precision={config.precision!r}: updates of reinforcement learning are smaller than weights in 16 bits can "
            "hold. Set bf16-mixed."
        )


def train_stage(config: RLTrainingConfig, folder: Path):
    """Train one stage; returns (reasoner, decoder)."""
    reasoner, decoder = prepare_model(config, require_trained=True)
    choose_attention(reasoner, config, build_objective(config, reasoner))
    for module in reasoner.modules():  # what is scored again must be what was drawn
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    wanted = {name for reward in config.rl.rewards for name in getattr(rewards.find(reward), "wants", ())}
    reference = None
    if config.rl.beta or config.rl.latent_beta or "sketches_alone" in wanted:
        reference, _ = prepare_model(replace(config, init_from=config.rl.ref_model), require_trained=True)
        choose_attention(reference, config, build_objective(config, reference))
        reference.requires_grad_(False).eval()
    if config.rl.latents_per_span and reasoner.can_sketch and reasoner.switch.stop != "count":
        raise ValueError(
            f"rl.latents_per_span: {config.method.name!r} decides by itself how many latents a sketch has. Remove the "
            "key."
        )
    freeze_all_but(reasoner, config.trainable)
    module = RLModule(reasoner, make_task(config.data, "train"), config, reference, decoder)
    if config.fsdp:
        check_fsdp(config, module)
    is_free = (
        reasoner.can_sketch and "head" in config.trainable and len(config.trainable) > 1 and not config.rl.sft_coef
    )
    if is_free:
        console.print(
            "Warning: head and backbone train together and no loss keeps latents where supervised training put them. "
            "Consider rl.sft_coef 0.05.",
            style="yellow",
        )
    save = make_saver(config, reasoner, decoder)
    length = {"max_new": config.rl.max_completion_length}
    callbacks = [SketchPanel(reasoner, decoder, config.data, folder, **length), RolloutPanel(decoder), Alarms()]
    if reasoner.can_sketch and config.data.val_items:
        callbacks.append(Dependence(reasoner, config.data, **length))
    prompts = Prompts(module.task, config, module.rates)
    fit(config, module, prompts, folder, save, callbacks, config.rl.num_iterations, config.fsdp)
    return reasoner.eval(), decoder


def check_fsdp(config: RLTrainingConfig, module: RLModule) -> None:
    """Raises ValueError for what FSDP2 cannot train."""
    sharding.check_supported(config, module)
    if config.rl.perturbations:
        raise ValueError(
            "fsdp: rl.perturbations score other rollouts, whose lengths differ between processes. Remove one of the two."
        )


def main() -> None:
    if done := run_training(train, RLTrainingConfig, __doc__):
        config, folder = done
        console.print(
            f"Checkpoint: {folder / 'model'}\nNext: python -m eval.run {folder / 'model'} --tasks "
            f"{config.data.task} --out {folder / 'eval.json'}"
        )


if __name__ == "__main__":
    main()
