"""A run: its folder, its trainer, its checkpoint. What sft, pretrain and decoder share."""

from __future__ import annotations

import warnings
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from rich.table import Table

from latent_reason import backbones, hub, methods

from .data import corpus
from .module import Stepper, parameter_table, set_trainable
from .recipe import Recipe, dump

console = Console()
ROOT = Path("checkpoints")


def run_folder(recipe: Recipe) -> Path:
    """Make ``checkpoints/RUN`` and leave the resolved recipe in it.

    Raises:
        FileExistsError: it is there already; nothing of it is touched.
    """
    folder = Path(recipe.run) if "/" in recipe.run else ROOT / recipe.run
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise FileExistsError(f"run folder '{folder}' exists. Give another name with --run, or move it away; "
                              "nothing was touched.") from None
    (folder / "recipe.yaml").write_text(dump(recipe), encoding="utf-8")
    return folder


def start(recipe: Recipe):
    """(reasoner, decoder or None) a recipe begins with: from a checkpoint, or from a backbone by name."""
    L.seed_everything(recipe.seed, verbose=False)
    decoder = None
    if recipe.init:
        loaded, decoder = hub.load(recipe.init, device="cpu", attn=recipe.backbone.attn)
        backbone = loaded.backbone
        backbone.positions = recipe.backbone.positions
    else:
        options = dict(recipe.backbone.options)
        if recipe.backbone.name == "tiny":
            options.setdefault("corpus", corpus(recipe.data))
        backbone = backbones.load(recipe.backbone.name, positions=recipe.backbone.positions,
                                  attn=recipe.backbone.attn, **options)
    reasoner = methods.build(recipe.method.name, backbone, **recipe.method.options)
    if torch.cuda.is_available() and recipe.accelerator in ("auto", "gpu", "cuda"):
        reasoner.cuda()
    return reasoner, decoder


def freeze(reasoner, parts: list[str]) -> None:
    """Train these parts only, and say so in a table."""
    set_trainable(reasoner, parts)
    table = Table(title=f"{reasoner.recipe['method']}: what trains")
    for title in ("part", "parameters", "trainable"):
        table.add_column(title, justify="left" if title == "part" else "right")
    for part, total, trainable in parameter_table(reasoner):
        table.add_row(part, f"{total:,}", f"{trainable:,}")
    console.print(table)


def notes(recipe: Recipe) -> dict:
    """What a checkpoint remembers of its training."""
    data = recipe.data
    return {"run": recipe.run, "seed": recipe.seed, "steps": recipe.optim.steps, "batch_size": data.batch_size,
            "init": recipe.init, "data": {"task": data.task, "levels": data.levels, "items": data.items,
                                          "options": data.options}}


class SaveOnInterrupt(Callback):
    """Ctrl-C, or an error, in training: what was learnt so far is written beside the run, whole."""

    def __init__(self, folder: Path, save):
        self.folder, self.save = folder, save

    def on_exception(self, trainer, module, exception):
        if trainer.global_rank == 0 and trainer.global_step:
            where = self.save(self.folder / "interrupted")
            console.print(f"Stopped at step {trainer.global_step} ({type(exception).__name__}). What was learnt so far "
                          f"is in '{where}'. Go on from it with --init {where}", style="yellow")


def fit(recipe: Recipe, module: Stepper, data: L.LightningDataModule, folder: Path, save,
        callbacks: list[Callback] | None = None) -> L.Trainer:
    """Train ``module`` for ``optim.steps`` steps with bars, TensorBoard logs and a safe stop."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LitLogger.*")
    trainer = L.Trainer(
        max_steps=recipe.optim.steps, max_epochs=-1, accelerator=recipe.accelerator, devices=_devices(recipe.devices),
        precision=recipe.precision, logger=TensorBoardLogger(folder, name="logs", version=""),
        callbacks=[RichProgressBar(refresh_rate=5), LearningRateMonitor("step"), SaveOnInterrupt(folder, save),
                   *(callbacks or [])],
        log_every_n_steps=recipe.log_every, enable_checkpointing=False, enable_model_summary=False,
        num_sanity_val_steps=0, limit_val_batches=1.0, check_val_every_n_epoch=None,
        val_check_interval=max(1, min(recipe.optim.steps, recipe.sketch_every or recipe.optim.steps)),
        fast_dev_run=recipe.fast_dev_run,
    )
    trainer.fit(module, data)
    return trainer


def _devices(given: str):
    return int(given) if given.lstrip("-").isdigit() else given
