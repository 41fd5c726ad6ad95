"""Callbacks that monitor a run: scores and sketches of held-out items, collapse of latents, warnings."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.callbacks import Callback

from eval.collapse import collapse_warning, latent_diagnostics
from eval.probe import probe
from eval.records import RecordTask
from latent_reason.decoding.items import decode, summarise
from latent_reason.visualization.storyboard import DecodedTrace, draw_storyboard

from .config import DataConfig
from .logs import RunLogger
from .progress import console
from .traces import make_task, mode_of

MAX_PANEL_ITEMS = 32


class SketchPanel(Callback):
    """Decodes held-out items at every validation, with at most ``max_new`` positions each. Logs their scores and, if
    the method sketches, a storyboard."""

    def __init__(self, reasoner, decoder, task, num_items: int, folder: Path, shown: int = 4, max_new: int = 640):
        """``task``: a task, or records; its first ``num_items`` items are decoded, at most 32. Sketches of records are
        shown and not scored, because records have no rules for them."""
        self.reasoner, self.decoder, self.folder, self.shown = reasoner, decoder, folder, shown
        self.task, self.max_new = task, max_new
        self.scoring_decoder = None if isinstance(task, RecordTask) else decoder
        self.items = [task[i] for i in range(min(MAX_PANEL_ITEMS, num_items))]
        self.mode = mode_of(reasoner.method.name)

    def on_validation_epoch_end(self, trainer, module):
        with module.whole_weights():
            if not trainer.sanity_checking and not module.data_parallel_rank:
                self.log_items(trainer, module)

    def log_items(self, trainer, module):
        decoder, how = self.scoring_decoder, {"max_new_tokens": self.max_new}
        results = decode(self.reasoner, decoder, self.task, self.items, self.mode, **how)
        is_constant = self.reasoner.can_sketch and self.reasoner.head.is_constant
        diagnostics = {} if is_constant else latent_diagnostics(self.reasoner, results)
        module.log_dict({f"val/{n}": v for n, v in (summarise(results) | diagnostics).items()}, rank_zero_only=True)
        if warning := collapse_warning(diagnostics):
            console.print(f"Warning: {warning}", style="yellow")
        shows_images = isinstance(trainer.logger, RunLogger) and trainer.logger.shows_images
        if self.decoder is None or not self.reasoner.is_renderable or not shows_images:
            return
        shown = [r.decoded for r in results if r.item.images][: self.shown]  # some records have no image
        if shown:
            image = draw_storyboard(self.reasoner, self.decoder, shown)
            trainer.logger.log_image("sketches", image, trainer.global_step)


class RolloutPanel(Callback):
    """Logs rollouts of training items, with their sketches, after batches 1, 2, 4, 8, ..."""

    def __init__(self, decoder, shown: int = 4):
        self.decoder, self.shown, self.batches = decoder, shown, 0

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.batches += 1
        step, rollouts = self.batches, module.sampler.last
        if rollouts is None or step & (step - 1):
            return
        with module.whole_weights():
            if not trainer.global_rank and isinstance(trainer.logger, RunLogger):
                self.log_rollouts(trainer, module, rollouts, step)

    def state_dict(self):
        return {"batches": self.batches}

    def load_state_dict(self, state):
        self.batches = state["batches"]

    def log_rollouts(self, trainer, module, rollouts, step: int):
        rows = range(0, len(rollouts.traces), max(1, len(rollouts.traces) // self.shown))[: self.shown]
        text = "\n\n".join(
            f"**{rollouts.graded[row].item.id}**, reward {float(rollouts.total[row]):.3f}\n\n{rollouts.graded[row].text}"
            for row in rows
        )
        trainer.logger.log_text("rollouts", text, step)
        if self.decoder is not None and module.reasoner.is_renderable and trainer.logger.shows_images:
            decoded = [DecodedTrace(rollouts.traces[row], rollouts.rollout, row) for row in rows]
            image = draw_storyboard(module.reasoner, self.decoder, decoded)
            trainer.logger.log_image("rollouts", image, step)


class Alarms(Callback):
    """Warns of problems of reinforcement learning that no loss shows. Each warning is printed once."""

    LIMITS = {
        "latents/pairwise_cos": (0.9, "latents have become nearly equal"),
        "frac_reward_zero_std": (
            0.8,
            "the rollouts of most items have equal rewards, so they give no gradient: use easier items, or "
            "rl.dynamic_sampling",
        ),
        "clip_ratio/latent": (
            0.5,
            "the ratios of most latents are clipped: use a smaller learning rate, or another likelihood norm",
        ),
    }

    def __init__(self):
        self.first_rate, self.warned = None, set()

    def state_dict(self):
        return {"first_rate": self.first_rate, "warned": sorted(self.warned)}

    def load_state_dict(self, state):
        self.first_rate, self.warned = state["first_rate"], set(state["warned"])

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        rate = metrics.get("switch/start_rate")
        self.first_rate = rate if self.first_rate is None else self.first_rate
        reasons = {name: why for name, (limit, why) in self.LIMITS.items() if metrics.get(name, 0.0) > limit}
        if rate is not None and rate < self.first_rate / 2:
            reasons["switch/start_rate"] = (
                f"fewer than half as many answers have a sketch as at the start ({self.first_rate:.2f})"
            )
        for name in sorted(reasons.keys() - self.warned):
            self.warned.add(name)
            console.print(
                f"Warning: step {trainer.global_step}: {name} is {metrics[name]:.2f}: {reasons[name]}.", style="yellow"
            )


class Dependence(Callback):
    """Measures at every validation whether answers depend on sketches. Logs how often answers follow the sketch of
    another item (``probe/p3_follow``) and the accuracy lost without sketches (``probe/p5_delta``)."""

    def __init__(self, reasoner, data: DataConfig, max_new: int = 640):
        task = make_task(data, "val")
        self.reasoner, self.task, self.max_new = reasoner, task, max_new
        self.items = [task[i] for i in range(data.val_items)]

    def on_validation_epoch_end(self, trainer, module):
        with module.whole_weights():
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
            report = probe(self.reasoner, self.task, self.items, only=("foreign", "removed"), plain=plain)
        values = {
            "probe/p3_follow": report["foreign"].get("follow_rate"),
            "probe/p5_delta": report["removed"]["difference"]["value"],
        }
        module.log_dict({name: value for name, value in values.items() if value is not None}, rank_zero_only=True)
