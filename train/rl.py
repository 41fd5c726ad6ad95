"""Teach a reasoner by reward: rollouts, rules that grade them, and one parallel pass that scores them again.

    python -m train.rl --config train/recipes/rl_frozenlake.yaml --init CHECKPOINT --run my-run

Words, and the decision to sketch, are actions; latents are as ``rl.policy`` says (latent_reason/policies.py). What is
learnt of them is a row of latent_reason/objectives.py. Leaves out on purpose: graders that are models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import lightning as L
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from latent_reason import policies
from latent_reason.batch import LATENT, TEXT
from latent_reason.generation import Rollout, generate
from latent_reason.objectives import OBJECTIVES, Surrogate, distance, surrogate
from latent_reason.policies import LatentPolicy
from latent_reason.reasoner import Replay
from latent_reason.tasks import Item
from latent_reason.trace import Trace

from . import rewards
from .callbacks import Dependence, SketchPanel
from .data import make_task, mode_of
from .module import Stepper
from .recipe import Recipe
from .rewards import Graded
from .run import console, fit, freeze, run, saver, start

POLICIES = {"mask": policies.Mask, "reward_weighted": policies.RewardWeighted, "vlpo": policies.Vlpo,
            "gaussian": policies.Gaussian, "flow_sde": policies.FlowSde, "ddpm_sde": policies.DdpmSde}
PATIENCE = 50  # batches in a row that may teach nothing
DULL = 1e-6  # an advantage no greater than this teaches nothing


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


class Rl(Stepper):
    """Policy optimisation of a reasoner on items of a task."""

    def __init__(self, reasoner, task, recipe: Recipe, reference=None):
        super().__init__(recipe.optim)
        self.reasoner, self.task, self.recipe, self.rl = reasoner, task, recipe, recipe.rl
        self.mode, self.policy = mode_of(recipe.method.name), policy_of(reasoner, recipe, task)
        self.objective = replace(OBJECTIVES[recipe.rl.objective], dual=recipe.rl.dual or None)
        self.paid = {name: (rewards.find(name), weight) for name, weight in recipe.rl.rewards.items()}
        self._reference = [reference]  # in a list, so that it is no submodule
        self.batches = self.idle = 0

    @property
    def steps(self) -> int:
        """Actions that a latent is made of."""
        return self.policy.steps if self.policy is not None else 0

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
        counted = torch.tensor([one.ended or self.rl.unfinished == "graded" for one in graded], device=device)
        advantages = torch.zeros_like(total)
        advantages[counted] = self.objective.advantage(total[counted], groups[counted])
        sizes = (rollout.kind == LATENT).sum(1, keepdim=True) * self.steps
        made_of = torch.arange(int(sizes.max()), device=device) < sizes
        return self.weighed([Experience(traces, rollout, graded, earned, total, advantages,
                                        (rollout.chosen | rollout.decided) & counted[:, None],
                                        made_of & counted[:, None])])[0]

    def grade(self, rollout: Rollout, row: int, item: Item) -> Graded:
        text = rollout.text(row, self.reasoner.vocabulary)
        kind = rollout.kind[row]
        return Graded(item, text, float(next(iter(self.task.score(text, item.meta).values()))),
                      int((kind == TEXT).sum()), int((kind == LATENT).sum()), len(rollout.spans_of(row)),
                      rollout.reasons[row] == "end", self.rl.max_new)

    def weighed(self, found: list[Experience]) -> list[Experience]:
        """Says what each action weighs among all of them."""
        def among(tables: list[torch.Tensor], longest: int) -> list[torch.Tensor]:
            widest = max(table.shape[1] for table in tables)
            whole = torch.cat([F.pad(table, (0, widest - table.shape[1])) for table in tables])
            parts = self.objective.average(whole, longest).split([len(table) for table in tables])
            return [part[:, :table.shape[1]] for part, table in zip(parts, tables, strict=True)]

        words = among([one.actions for one in found], self.rl.max_new)
        if self.policy is not None and self.policy.regresses:  # an average over what did better than its group
            good = [one.advantages.clamp_min(0)[:, None] * one.latent_actions for one in found]
            latents = [one / sum(each.sum() for each in good).clamp_min(1e-8) for one in good]
        else:
            latents = among([one.latent_actions for one in found], self.rl.max_new * max(self.steps, 1))
        for one, weights, latent_weights in zip(found, words, latents, strict=True):
            one.weights, one.latent_weights = weights, latent_weights
        return found

    def gathered(self, items: Sequence[Item]) -> tuple[list[Experience], list[Item]]:
        """What a batch teaches, and the items that no rollout solved."""
        found, told, unsolved, n = [], [], [], self.rl.prompts
        for at in range(0, len(items), n):
            one = self.experience(items[at:at + n])
            told.append(self.told(one))
            unsolved += [item for i, item in enumerate(items[at:at + n]) if not any(
                each.right for each in one.graded[i * self.rl.group:(i + 1) * self.rl.group])]
            if self.rl.refill:
                live = one.advantages.view(-1, self.rl.group).abs().amax(1) > DULL
                rows = live.repeat_interleave(self.rl.group).nonzero()[:, 0].tolist()
                found += [one.part(rows, self.reasoner)] if rows else []
            else:
                found.append(one)
            if sum(len(one.traces) for one in found) >= n * self.rl.group:
                break
        self.log_dict({name: sum(one[name] for one in told if name in one) / sum(name in one for one in told)
                       for name in {name for one in told for name in one}}, batch_size=n)
        self.log("train/reward", sum(one["reward"] for one in told) / len(told), prog_bar=True, batch_size=n)
        return self.weighed(found) if found else [], unsolved

    # -- learning --------------------------------------------------------------------------------------------------
    def training_step(self, items, index):
        found, unsolved = self.gathered(items)
        anchored = unsolved if self.rl.anchor else []  # AHPO's gate (MM-HELIX 2510.08540)
        pieces = [piece for one in found for piece in self.pieces(one)]
        count = len(pieces) + bool(anchored)
        most = self.most(count)
        if not most:
            self.idle += 1
            self.log("rl/skipped", float(self.idle))
            if self.idle >= PATIENCE:
                raise ValueError(f"{PATIENCE} batches in a row taught nothing: in every group all rewards are equal. "
                                 "Take items the model solves now and then, a larger rl.group or a higher "
                                 "rl.temperature.")
            return
        self.idle = 0
        if self.rl.updates > 1:
            for piece in pieces:
                with torch.no_grad():
                    old = self.reasoner.replay(piece.rollout, self.policy, self.rl.temperature)
                piece.words, piece.latents = old.words + old.stops, old.latents
        for _ in range(self.rl.updates):
            said: list[dict[str, torch.Tensor]] = []
            self.update(self.losses(pieces, anchored, most - count, said))
            for name in {name for parts in said for name in parts}:
                values = torch.stack([parts[name].detach() for parts in said if name in parts])
                self.log(name, values.sum() if name.startswith("train/") else values.mean(), batch_size=len(items),
                         prog_bar=name.startswith("train/"))

    def most(self, count: int) -> int:
        """The greatest of the counts of all processes, which must all go backward equally often."""
        if self._trainer is None or self.trainer.world_size == 1:
            return count
        return int(self.all_gather(torch.tensor(count, device=self.device)).max())

    def pieces(self, found: Experience) -> list[Experience]:
        """What is scored again at a time; rows that teach nothing are not."""
        rows = list(range(len(found.traces)))
        if self._reference[0] is None:
            rows = [row for row in rows if abs(float(found.advantages[row])) > DULL]
        size = self.rl.replay_rows or max(len(rows), 1)
        return [found.part(rows[at:at + size], self.reasoner) for at in range(0, len(rows), size)]

    def losses(self, pieces: list[Experience], anchored: list[Item], idle: int, said: list) -> Iterator[torch.Tensor]:
        """One after the other, what an update adds up; their parts are noted in ``said``."""
        for piece in pieces:
            loss, parts = self.loss(piece)
            said.append(parts)
            yield loss
        if anchored:
            batch = self.reasoner.collator()([self.task.trace(item, self.mode) for item in anchored])
            terms = self.reasoner(batch.to(self.reasoner.device))
            said.append({"train/anchor": terms.total})
            yield self.rl.anchor * terms.total
        for _ in range(idle):
            yield self.nothing()

    def loss(self, found: Experience) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """What an update minimises, and what is logged of it."""
        new = self.reasoner.replay(found.rollout, self.policy, self.rl.temperature)
        words = new.words + new.stops
        old = words.detach() if found.words is None else found.words
        text = surrogate(self.objective, words, old, found.advantages, found.actions, found.weights)
        parts = {"train/policy": text.loss, "clip_ratio/region_mean": text.clipped, "ratio/text_mean": text.ratio_mean,
                 "ratio/text_max": text.ratio_max}
        loss = text.loss
        if self.steps and len(new.latents):
            latent = self.latent_loss(found, new.latents)
            parts |= {"train/latent": latent.loss, "clip_ratio/latent": latent.clipped,
                      "ratio/latent_mean": latent.ratio_mean, "ratio/latent_max": latent.ratio_max}
            loss = loss + self.rl.latent_weight * latent.loss
        if self._reference[0] is not None:
            there = self.compared(found.rollout)
            far = (distance(words, there.words + there.stops) * found.weights).sum()
            parts["kl"], loss = far, loss + self.rl.kl * far
            if len(new.states):
                parts |= self.drift(new.states, there.states)
            if self.steps and len(new.latents):
                apart = self.policy.kl(self.reasoner.head, new.states, self._reference[0].head, there.states,
                                       found.rollout.records).mean()
                parts["kl/latent"], loss = apart, loss + self.rl.latent_kl * apart
        return loss, parts

    @torch.no_grad()
    def compared(self, rollout: Rollout) -> Replay:
        """The rollout as the model scores it that training began with."""
        return self._reference[0].replay(rollout, None, self.rl.temperature)

    @torch.no_grad()
    def drift(self, states: torch.Tensor, there: torch.Tensor) -> dict[str, torch.Tensor]:
        """How far what the head gives has turned since training began, from one noise."""
        noise = torch.randn(len(states), 1, self.reasoner.head.latent, device=states.device,
                            generator=torch.Generator(states.device).manual_seed(0)).to(states.dtype)
        now, then = (policies.middle(one.head, h, noise).float() for one, h in (
            (self.reasoner, states), (self._reference[0], there)))
        return {"latents/cos_to_sft": F.cosine_similarity(now, then).mean(), "latents/norm": now.norm(dim=-1).mean()}

    def latent_loss(self, found: Experience, new: torch.Tensor) -> Surrogate:
        """The surrogate of latents, whose log-probabilities (n, steps) are laid out row by row."""
        sizes = (found.rollout.kind == LATENT).sum(1, keepdim=True) * self.steps
        filled = torch.arange(found.latent_actions.shape[1], device=new.device) < sizes

        def laid_out(values: torch.Tensor) -> torch.Tensor:
            return torch.zeros(filled.shape, device=new.device).masked_scatter(filled, values.flatten())

        if self.policy.regresses:
            one = torch.ones((), device=new.device)
            return Surrogate(-(laid_out(new) * found.latent_weights).sum(), 0 * one, one, one)
        old = new.detach() if found.latents is None else found.latents
        clipped = replace(self.objective, low=self.policy.clip, high=self.policy.clip)
        return surrogate(clipped, laid_out(new), laid_out(old), found.advantages, found.latent_actions,
                         found.latent_weights)

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
        size = self.recipe.rl.prompts * (1 + self.recipe.rl.refill)
        return DataLoader(mine, batch_size=min(size, len(mine)), drop_last=True,
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
    if recipe.rl.kl or recipe.rl.latent_kl:
        reference, _ = start(recipe)
        reference.requires_grad_(False).eval()
    freeze(reasoner, [p for p in recipe.trainable if p != "head" or reasoner.sketches])
    task = make_task(recipe.data, "train")
    module = Rl(reasoner, task, recipe, reference)
    save = saver(recipe, reasoner, decoder)
    looks = [SketchPanel(reasoner, decoder, recipe.data, folder)]
    if reasoner.sketches:
        looks.append(Dependence(reasoner, recipe.data))
    fit(recipe, module, Prompts(task, recipe), folder, save, looks)
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
