"""Teach a reasoner by reward: rollouts, rules that grade them, and one parallel pass that scores them again.

    python -m train.rl --config train/recipes/rl_frozenlake.yaml --init CHECKPOINT --run my-run

Words, and the decision to sketch, are actions; latents are as ``rl.policy`` says (latent_reason/policies.py). What is
learnt of them is a row of latent_reason/objectives.py. Leaves out on purpose: graders that are models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader

from latent_reason import policies
from latent_reason.batch import LATENT, TEXT
from latent_reason.generation import Rollout, generate
from latent_reason.objectives import OBJECTIVES, Surrogate, distance, surrogate
from latent_reason.policies import LatentPolicy
from latent_reason.tasks import Item

from . import rewards
from .callbacks import SketchPanel
from .data import make_task, mode_of
from .module import Stepper
from .recipe import Recipe
from .rewards import Graded
from .run import console, fit, freeze, run, saver, start

POLICIES = {"mask": policies.Mask, "reward_weighted": policies.RewardWeighted, "vlpo": policies.Vlpo,
            "gaussian": policies.Gaussian, "flow_sde": policies.FlowSde, "ddpm_sde": policies.DdpmSde}
PATIENCE = 50  # batches in a row that may teach nothing


def policy_of(reasoner, recipe: Recipe) -> LatentPolicy | None:
    """The policy of a recipe for the head at hand; None for a method that does not sketch.

    Raises:
        ValueError: no such policy, or the head cannot be its head.
    """
    if recipe.rl.policy not in POLICIES:
        raise ValueError(f"rl.policy={recipe.rl.policy!r}: one of {', '.join(POLICIES)}.")
    if not reasoner.sketches:
        return None
    options = dict(recipe.rl.policy_options)
    if recipe.rl.policy == "gaussian" and reasoner.head.raw:
        options.setdefault("spread", reasoner.target.spread)
    return POLICIES[recipe.rl.policy](reasoner.head, **options)


@dataclass
class Experience:
    """A batch of rollouts, R = prompts x group of them: what they earned and how likely they were. ``rewards`` (R,) by
    name, ``total`` (R,), ``advantages`` (R,), ``old`` the log-probabilities they were drawn with."""

    rollout: Rollout
    graded: list[Graded]
    rewards: dict[str, torch.Tensor]
    total: torch.Tensor
    groups: torch.Tensor
    advantages: torch.Tensor
    words: torch.Tensor | None = None  # (R, T)
    latents: torch.Tensor | None = None  # (n, steps)


class Rl(Stepper):
    """Policy optimisation of a reasoner on items of a task."""

    def __init__(self, reasoner, task, recipe: Recipe, reference=None):
        super().__init__(recipe.optim)
        self.reasoner, self.task, self.recipe, self.rl = reasoner, task, recipe, recipe.rl
        self.mode, self.policy = mode_of(recipe.method.name), policy_of(reasoner, recipe)
        self.objective = OBJECTIVES[recipe.rl.objective]
        self.paid = {name: (rewards.find(name), weight) for name, weight in recipe.rl.rewards.items()}
        self._reference = [reference]  # in a list, so that it is no submodule
        self.batches = self.idle = 0

    # -- experience ------------------------------------------------------------------------------------------------
    def experience(self, items: Sequence[Item]) -> Experience:
        """Roll out ``group`` times for each item, grade, and compare within groups."""
        g, device = self.rl.group, self.reasoner.device
        traces = [self.task.trace(item, self.mode) for item in items for _ in range(g)]
        prompt = self.reasoner.collator()(traces, generate=True).to(device)
        rollout = generate(self.reasoner, prompt, max_new=self.rl.max_new, temperature=self.rl.temperature,
                           seed=hash((self.recipe.seed, self.batches, self.global_rank)) % 2**31, policy=self.policy)
        self.batches += 1
        graded = [self.grade(rollout, row, items[row // g]) for row in range(len(traces))]
        by_group = [graded[at:at + g] for at in range(0, len(graded), g)]
        earned = {name: torch.tensor([value for group in by_group for value in rewards.paid(name, reward, group)],
                                     device=device) for name, (reward, _) in self.paid.items()}
        total = sum(weight * earned[name] for name, (_, weight) in self.paid.items())
        groups = torch.arange(len(items), device=device).repeat_interleave(g)
        return Experience(rollout, graded, earned, total, groups, self.objective.advantage(total, groups))

    def grade(self, rollout: Rollout, row: int, item: Item) -> Graded:
        text = rollout.text(row, self.reasoner.vocabulary)
        kind = rollout.kind[row]
        return Graded(item, text, float(next(iter(self.task.score(text, item.meta).values()))),
                      int((kind == TEXT).sum()), int((kind == LATENT).sum()), len(rollout.spans_of(row)),
                      rollout.reasons[row] == "end")

    # -- learning --------------------------------------------------------------------------------------------------
    def training_step(self, items, index):
        found = self.experience(items)
        self.log_dict(self.told(found), prog_bar=False, batch_size=len(items))
        self.log("train/reward", found.total.mean(), prog_bar=True)
        anchored = self.to_anchor(items, found)
        alone = self._trainer is None or self.trainer.world_size == 1  # several processes step together or hang
        if alone and not found.advantages.abs().max() > 1e-6 and not anchored and self._reference[0] is None:
            self.idle += 1
            self.log("rl/skipped", float(self.idle))
            if self.idle >= PATIENCE:
                raise ValueError(f"{PATIENCE} batches in a row taught nothing: in every group all rewards are equal "
                                 f"(mean {float(found.total.mean()):.2f}). Take items the model solves now and then, "
                                 "a larger rl.group or a higher rl.temperature.")
            return
        self.idle = 0
        if self.rl.updates > 1:
            with torch.no_grad():
                old = self.reasoner.replay(found.rollout, self.policy, self.rl.temperature)
                found.words, found.latents = old.words + old.stops, old.latents
        for _ in range(self.rl.updates):
            loss, parts = self.loss(found)
            if anchored:
                batch = self.reasoner.collator()([self.task.trace(item, self.mode) for item in anchored])
                terms = self.reasoner(batch.to(self.reasoner.device))
                parts["anchor"], loss = terms.total, loss + self.rl.anchor * terms.total
            self.log_dict({f"train/{n}": p.detach() for n, p in parts.items()}, prog_bar=True, batch_size=len(items))
            self.update(loss)

    def to_anchor(self, items: Sequence[Item], found: Experience) -> list[Item]:
        """The items that no rollout solved: what is taught of them is the solver's own trace (AHPO's gate, MM-HELIX
        2510.08540)."""
        if not self.rl.anchor:
            return []
        g = self.rl.group
        return [item for i, item in enumerate(items) if not any(one.right for one in found.graded[i * g:(i + 1) * g])]

    def loss(self, found: Experience) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """What an update minimises, and its parts."""
        rollout = found.rollout
        new = self.reasoner.replay(rollout, self.policy, self.rl.temperature)
        words, actions = new.words + new.stops, rollout.chosen | rollout.decided
        old = words.detach() if found.words is None else found.words
        text = surrogate(self.objective, words, old, found.advantages, actions, self.rl.max_new)
        parts = {"policy": text.loss}
        self.log_dict({"clip_ratio/region_mean": text.clipped, "ratio/text_mean": text.ratio_mean,
                       "ratio/text_max": text.ratio_max})
        loss = text.loss
        if self.policy is not None and self.policy.steps and len(new.latents):
            latent = self.latent_loss(found, new.latents)
            parts["latent"], loss = latent.loss, loss + self.rl.latent_weight * latent.loss
            self.log_dict({"clip_ratio/latent": latent.clipped, "ratio/latent_mean": latent.ratio_mean,
                           "ratio/latent_max": latent.ratio_max})
        if self.rl.kl:
            with torch.no_grad():
                there = self._reference[0].replay(rollout, None, self.rl.temperature)
            far = self.objective.average(distance(words, there.words + there.stops), actions, self.rl.max_new)
            parts["kl"], loss = far, loss + self.rl.kl * far
        return loss, parts

    def latent_loss(self, found: Experience, new: torch.Tensor) -> Surrogate:
        """The surrogate of latents, whose log-probabilities (n, steps) are laid out row by row."""
        counts = (found.rollout.kind == LATENT).sum(1) * self.policy.steps
        actions = torch.arange(int(counts.max()), device=new.device) < counts[:, None]

        def laid_out(values: torch.Tensor) -> torch.Tensor:
            return torch.zeros(actions.shape, device=new.device).masked_scatter(actions, values.flatten())

        if self.policy.regresses:
            weight = found.advantages.clamp_min(0)[:, None] * actions
            one = torch.ones((), device=new.device)
            return Surrogate(-(laid_out(new) * weight).sum() / weight.sum().clamp_min(1e-8), 0 * one, one, one)
        old = new.detach() if found.latents is None else found.latents
        clipped = replace(self.objective, low=self.policy.clip, high=self.policy.clip)
        return surrogate(clipped, laid_out(new), laid_out(old), found.advantages, actions,
                         self.rl.max_new * self.policy.steps)

    # -- what is said of it ----------------------------------------------------------------------------------------
    def told(self, found: Experience) -> dict[str, float]:
        """Figures of a batch, under TRL's names where it has them."""
        graded, rollout = found.graded, found.rollout
        n, spread = len(graded), found.total.view(-1, self.rl.group).std(1, correction=0)
        sizes = torch.tensor([float(one.words + one.latents) for one in graded])
        latents, spans = (sum(getattr(one, name) for one in graded) for name in ("latents", "spans"))
        opened = rollout.chosen & (rollout.ids == self.reasoner.vocabulary.open)
        out = {"reward": found.total.mean(), "reward_std": spread.mean(),
               "frac_reward_zero_std": (spread < 1e-6).float().mean(), "completions/mean_length": sizes.mean(),
               "completions/max_length": sizes.max(),
               "completions/clipped_ratio": sum(not one.ended for one in graded) / n,
               "entropy": -rollout.sampled_logprob[rollout.chosen].mean(), "accuracy": sum(
                   one.right for one in graded) / n, "spans/per_answer": spans / n, "latents/per_answer": latents / n,
               "latents/per_span": latents / max(spans, 1), "switch/start_rate": opened.any(1).float().mean()}
        for name, values in found.rewards.items():
            out |= {f"rewards/{name}/mean": values.mean(), f"rewards/{name}/std": values.std(correction=0)}
        sketched = torch.tensor([one.spans > 0 for one in graded], device=found.total.device)
        if sketched.any() and not sketched.all():
            out["reward/with_minus_without_sketch"] = found.total[sketched].mean() - found.total[~sketched].mean()
        return {name: float(value) for name, value in out.items()}

    def validation_step(self, batch, index):
        """What is held out is decoded by the panel of sketches."""


class Prompts(L.LightningDataModule):
    """Batches of items, each process its own, in an order that the seed fixes."""

    def __init__(self, task, recipe: Recipe):
        super().__init__()
        self.task, self.recipe = task, recipe
        self.rows = {"val": [0]}

    def train_dataloader(self) -> DataLoader:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        order = torch.randperm(self.recipe.data.items, generator=torch.Generator().manual_seed(self.recipe.seed))
        mine = list(islice(order.tolist(), rank, None, world))
        return DataLoader(mine, batch_size=min(self.recipe.rl.prompts, len(mine)), drop_last=True,
                          collate_fn=lambda places: [self.task[i] for i in places])

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.rows["val"])

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch  # items of a task are no tensors


def train(recipe: Recipe, folder: Path):
    """Run a recipe into a folder; returns (reasoner, decoder). The checkpoint is ``folder/model``."""
    if not recipe.init:
        raise ValueError("reinforcement learning begins with a model that solves an item now and then. Give its "
                         "checkpoint: --init checkpoints/NAME/model")
    if recipe.data.folder:
        raise ValueError("data.folder: rewards need a task that grades answers. Leave the key out and name data.task.")
    reasoner, decoder = start(recipe)
    reference = None
    if recipe.rl.kl:
        reference, _ = start(recipe)
        reference.requires_grad_(False).eval()
    freeze(reasoner, [p for p in recipe.trainable if p != "head" or reasoner.sketches])
    task = make_task(recipe.data, "train")
    module = Rl(reasoner, task, recipe, reference)
    save = saver(recipe, reasoner, decoder)
    fit(recipe, module, Prompts(task, recipe), folder, save, [SketchPanel(reasoner, decoder, recipe.data, folder)])
    if not recipe.fast_dev_run:
        save(folder / "model")
    return reasoner.eval(), decoder


def main() -> None:
    if done := run(train, __doc__):
        recipe, folder = done
        console.print(f"Checkpoint: {folder / 'model'}\nNext: python -m eval.run {folder / 'model'} --tasks "
                      f"{recipe.data.task} --out {folder / 'eval.json'}")


if __name__ == "__main__":
    main()
