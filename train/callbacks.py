"""What people look at while a run goes on: sketches in TensorBoard, how often they and the plans are right, and whether
the latents are alive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lightning.pytorch.callbacks import Callback

from eval.collapse import collapse_warning, latent_diagnostics
from eval.probe import probe
from latent_reason.decoding.items import decode, summarise
from latent_reason.model.heads import ConstantHead, PadHead
from latent_reason.visualization.storyboard import DecodedTrace, draw_storyboard

from .config import Data
from .data import make_task, mode_of
from .progress import console
from .sharding import whole


class SketchPanel(Callback):
    """At every validation: decode held-out items, of at most ``max_new`` positions each, log their scores and, where
    the method sketches, the storyboard."""

    def __init__(
        self, reasoner, decoder, data: Data, folder: Path, items: int = 32, shown: int = 4, max_new: int = 640
    ):
        self.reasoner, self.decoder, self.folder, self.shown = reasoner, decoder, folder, shown
        self.max_new = max_new
        self.task = make_task(data, "val")
        self.items = [self.task[i] for i in range(min(items, max(shown, data.val_items)))]
        self.mode = mode_of(reasoner.method.name)

    def on_validation_epoch_end(self, trainer, module):
        with whole(self.reasoner):
            if not trainer.sanity_checking and not trainer.global_rank:
                self.look(trainer, module)

    def look(self, trainer, module):
        results = decode(self.reasoner, self.decoder, self.task, self.items, self.mode, max_new_tokens=self.max_new)
        is_constant = isinstance(self.reasoner.head, ConstantHead | PadHead)
        found = {} if is_constant else latent_diagnostics(self.reasoner, results)
        module.log_dict({f"val/{n}": v for n, v in (summarise(results) | found).items()}, rank_zero_only=True)
        if warning := collapse_warning(found):
            console.print(f"Warning: {warning}", style="yellow")
        if self.decoder is None or not self.reasoner.is_renderable or trainer.logger is None:
            return
        picture = draw_storyboard(self.reasoner, self.decoder, [r.decoded for r in results[: self.shown]])
        if hasattr(trainer.logger, "experiment"):
            trainer.logger.experiment.add_image("sketches", np.asarray(picture), trainer.global_step, dataformats="HWC")


class RolloutPanel(Callback):
    """Rollouts of items that are trained on, with their sketches, in TensorBoard, after batches 1, 2, 4, 8, ..."""

    def __init__(self, decoder, shown: int = 4):
        self.decoder, self.shown, self.batches = decoder, shown, 0

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.batches += 1
        step, found = self.batches, module.shown
        if found is None or step & (step - 1):
            return
        with whole(module.reasoner):
            if not trainer.global_rank and hasattr(trainer.logger, "experiment"):
                self.look(trainer, module, found, step)

    def look(self, trainer, module, found, step: int):
        rows = range(0, len(found.traces), max(1, len(found.traces) // self.shown))[: self.shown]
        text = "\n\n".join(
            f"**{found.graded[row].item.id}**, reward {float(found.total[row]):.3f}\n\n{found.graded[row].text}"
            for row in rows
        )
        trainer.logger.experiment.add_text("rollouts", text, step)
        if self.decoder is not None and module.reasoner.is_renderable:
            decoded = [DecodedTrace(found.traces[row], found.rollout, row) for row in rows]
            picture = draw_storyboard(module.reasoner, self.decoder, decoded)
            trainer.logger.experiment.add_image("rollouts", np.asarray(picture), step, dataformats="HWC")


class Alarms(Callback):
    """Says, once each, what goes wrong in reinforcement learning without any loss showing it."""

    LIMITS = {
        "latents/pairwise_cos": (0.9, "latents have become alike"),
        "frac_reward_zero_std": (
            0.8,
            "most groups earn the same, so they teach nothing: take items that are solved now and then, or rl.refill",
        ),
        "clip_ratio/latent": (
            0.5,
            "most latents' ratios are clipped: take a smaller learning rate, or another likelihood norm",
        ),
    }

    def __init__(self):
        self.rate, self.said = None, set()

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        seen = {name: float(value) for name, value in trainer.callback_metrics.items()}
        rate = seen.get("switch/start_rate")
        self.rate = rate if self.rate is None else self.rate
        found = {name: why for name, (limit, why) in self.LIMITS.items() if seen.get(name, 0.0) > limit}
        if rate is not None and rate < self.rate / 2:
            found["switch/start_rate"] = f"it sketches in less than half as many answers as at first ({self.rate:.2f})"
        for name in sorted(found.keys() - self.said):
            self.said.add(name)
            console.print(
                f"Warning: step {trainer.global_step}: {name} is {seen[name]:.2f}: {found[name]}.", style="yellow"
            )


class Dependence(Callback):
    """At every validation: whether answers still depend on sketches. Logs how often a foreign sketch is followed
    (``probe/p3_follow``) and what forbidding to sketch costs (``probe/p5_delta``), on items of the validation split."""

    def __init__(self, reasoner, data: Data, max_new: int = 640):
        task = make_task(data, "val")
        self.reasoner, self.task, self.max_new = reasoner, task, max_new
        self.items = [task[i] for i in range(data.val_items)]

    def on_validation_epoch_end(self, trainer, module):
        with whole(self.reasoner):
            if trainer.sanity_checking or trainer.global_rank:
                return
            plain = decode(
                self.reasoner,
                None,
                self.task,
                self.items,
                mode_of(self.reasoner.method.name),
                max_new_tokens=self.max_new,
            )
            found = probe(self.reasoner, self.task, self.items, only=("foreign", "removed"), plain=plain)
        values = {
            "probe/p3_follow": found["foreign"].get("follow_rate"),
            "probe/p5_delta": found["removed"]["difference"]["value"],
        }
        module.log_dict({name: value for name, value in values.items() if value is not None}, rank_zero_only=True)
