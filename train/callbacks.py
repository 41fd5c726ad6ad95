"""What people look at while a run goes on: sketches in TensorBoard, how often they and the plans are right, and whether
the latents are alive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lightning.pytorch.callbacks import Callback

from eval.decode import decode, summarise
from eval.health import alarm, health
from eval.probe import probe
from latent_reason.sheet import storyboard

from .data import make_task, mode_of
from .progress import console
from .recipe import Data


class SketchPanel(Callback):
    """At every validation: decode held-out items, log their scores and, where the method sketches, the storyboard."""

    def __init__(self, reasoner, decoder, data: Data, folder: Path, items: int = 32, shown: int = 4):
        self.reasoner, self.decoder, self.folder, self.shown = reasoner, decoder, folder, shown
        self.task = make_task(data, "val")
        self.items = [self.task[i] for i in range(min(items, max(shown, data.val_items)))]
        self.mode = mode_of(reasoner.recipe["method"])

    def on_validation_epoch_end(self, trainer, module):
        if trainer.sanity_checking or trainer.global_rank:
            return
        results = decode(self.reasoner, self.decoder, self.task, self.items, self.mode)
        traces = [self.task.trace(i, self.mode) for i in self.items]
        found = health(self.reasoner, results, traces) if self.reasoner.latent_input != "blank" else {}
        module.log_dict({f"val/{n}": v for n, v in (summarise(results) | found).items()}, rank_zero_only=True)
        if warning := alarm(found):
            console.print(f"Warning: {warning}", style="yellow")
        if self.decoder is None or not self.reasoner.renders or trainer.logger is None:
            return
        small = decode(self.reasoner, self.decoder, self.task, self.items[:self.shown], self.mode)
        picture = storyboard(self.reasoner, self.decoder, traces[:self.shown], small[0].rollout)
        if hasattr(trainer.logger, "experiment"):
            trainer.logger.experiment.add_image("sketches", np.asarray(picture), trainer.global_step,
                                                dataformats="HWC")


class Dependence(Callback):
    """At every validation: whether answers still depend on sketches. Logs how often a foreign sketch is followed
    (``probe/p3_follow``) and what forbidding to sketch costs (``probe/p5_delta``), on items of the validation split."""

    def __init__(self, reasoner, data: Data):
        task = make_task(data, "val")
        self.reasoner, self.task = reasoner, task
        self.items = [task[i] for i in range(data.val_items)]

    def on_validation_epoch_end(self, trainer, module):
        if trainer.sanity_checking or trainer.global_rank:
            return
        found = probe(self.reasoner, self.task, self.items, only=("foreign", "removed"))
        values = {"probe/p3_follow": found["foreign"].get("follow_rate"),
                  "probe/p5_delta": found["removed"]["difference"]["value"]}
        module.log_dict({name: value for name, value in values.items() if value is not None}, rank_zero_only=True)
