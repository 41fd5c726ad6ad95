"""A run: its folder, its stages, its Trainer and its checkpoint. All training commands share this file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from latent_reason import checkpoint
from latent_reason.errors import cli_errors

from . import sharding
from .config import RunConfig, StagedConfig, dump, parse_command_line, stages_of
from .config.groups import Precision
from .data import TraceData
from .lit_modules import TrainingModule
from .progress import StepProgress, console, quiet

ROOT = Path("checkpoints")
LATENT_POSITIONS = {"line": "1d", "grid": "2d"}  # recipe -> library


def run_training(
    train: Callable[[RunConfig, Path], object], config_class: type[RunConfig], description: str
) -> tuple[RunConfig, Path] | None:
    """What every ``python -m train.NAME`` does: parse the config, make the run folder, train into it.

    An error is one sentence. A run that left nothing to keep (an error before the first step, a trial with
    ``--fast_dev_run``) removes its folder, and the trial returns None.
    """
    config = parse_command_line(config_class, description)
    with cli_errors():
        folder = make_run_folder(config)
        try:
            train(config, folder)
        finally:
            if rank_zero_only.rank == 0 and {p.name for p in folder.iterdir()} == {"recipe.yaml"}:
                shutil.rmtree(folder)
        if not config.fast_dev_run:
            return config, folder
        console.print("One batch went through training and validation. Nothing was kept.")
        return None


def folder_of(run_name: str) -> Path:
    """``checkpoints/RUN_NAME``; a name with a slash is a path of its own."""
    return Path(run_name) if "/" in run_name else ROOT / run_name


def make_run_folder(config: RunConfig) -> Path:
    """Make the folder of a run and write the resolved config into it; of several processes, the first does so.

    Raises:
        FileExistsError: the folder exists; nothing in it is touched.
    """
    folder = folder_of(config.run_name)
    if rank_zero_only.rank:
        return folder
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise FileExistsError(
            f"run folder '{folder}' exists. Set another --run_name, or move the folder; nothing was touched."
        ) from None
    (folder / "recipe.yaml").write_text(dump(config), encoding="utf-8")
    return folder


def train_stages(config: StagedConfig, folder: Path, train_stage: Callable[[StagedConfig, Path], tuple]):
    """Call ``train_stage`` for every stage of a config, each from the model of the stage before; return what the last
    call returns. Earlier stages are kept in ``folder/stage-1`` and so on."""
    *earlier, last = stages_of(config)[: 1 if config.fast_dev_run else None]
    start = {}
    for number, stage in enumerate(earlier, 1):
        console.rule(f"stage {number} of {len(earlier) + 1}")
        stage = replace(stage, run_name=str(folder / f"stage-{number}"), **start)
        train_stage(stage, make_run_folder(stage))
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # the first process writes what all read next
        start = {"init_from": f"{stage.run_name}/model"}
    if earlier:
        console.rule(f"stage {len(earlier) + 1} of {len(earlier) + 1}")
    return train_stage(replace(last, **start), folder)


def training_notes(config: RunConfig) -> dict:
    """What a checkpoint remembers of its training."""
    data = config.data
    backbone = checkpoint.read_config(config.init_from)["notes"].get("backbone") if config.init_from else None
    return {
        "run": config.run_name,
        "seed": config.seed,
        "steps": config.optim.max_steps,
        "batch_size": getattr(data, "batch_size", None),
        "init": config.init_from,
        "backbone": backbone if config.init_from else config.backbone.name,
        "data": {
            "task": data.task,
            "folder": getattr(data, "folder", None),
            "levels": data.levels,
            "items": data.items,
            "options": data.options,
        },
    }


def make_saver(config: RunConfig, reasoner, decoder) -> Callable[..., Path | None]:
    """``save(folder)`` writes the whole checkpoint, with other ``weights`` where they are given; of several processes,
    the first does so."""

    @rank_zero_only
    def save(where: Path, weights: dict[str, torch.Tensor] | None = None) -> Path:
        return checkpoint.save(reasoner, where, decoder=decoder, notes=training_notes(config), weights=weights)

    return save


class CheckpointCallback(Callback):
    """Saves the model at the end as ``folder/model``, and every ``save_steps`` steps before that (0: never) as
    ``folder/step-N``, of which the last one is kept. After Ctrl-C or an error it saves ``folder/interrupted``."""

    def __init__(self, folder: Path, save: Callable[..., Path | None], save_steps: int = 0):
        self.folder, self.save, self.save_steps, self.has_ended = folder, save, save_steps, False
        self.last: Path | None = None

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        step = trainer.global_step
        where = self.folder / f"step-{step}"
        is_due = self.save_steps and step and step % self.save_steps == 0 and step < trainer.max_steps
        if is_due and where != self.last:
            self._replace_last(module, where)
            self.last = where

    def on_train_end(self, trainer, module):
        self.has_ended = True
        if not trainer.fast_dev_run:
            self._replace_last(module, self.folder / "model")

    def on_exception(self, trainer, module, exception):
        if self.has_ended or not trainer.is_global_zero:
            return  # after the end: it was saving that failed
        stopped = f"Stopped at step {trainer.global_step} ({type(exception).__name__})."
        if module.sharded:
            kept = f"'{self.last}' is kept" if self.last else "Nothing was kept; set save_steps"
            console.print(f"{stopped} Weights are split among processes that have stopped. {kept}.", style="yellow")
        elif not trainer.global_step:
            console.print(
                f"Stopped before the first step ({type(exception).__name__}). No model was kept; the logs are in "
                f"'{self.folder}'.",
                style="yellow",
            )
        else:
            where = self.save(self.folder / "interrupted")
            console.print(
                f"{stopped} The model so far is in '{where}'. Continue from it with --init_from {where}", style="yellow"
            )

    def _replace_last(self, module, where: Path) -> None:
        """Save, and remove the checkpoint before."""
        self.save(where, sharding.gathered(module.reasoner) if module.sharded else None)
        if self.last is not None and rank_zero_only.rank == 0:
            shutil.rmtree(self.last)


def fit(
    config: RunConfig,
    module: TrainingModule,
    data: TraceData,
    folder: Path,
    save: Callable[..., Path | None],
    callbacks: list[Callback] | None = None,
    steps_per_batch: int = 1,
    fsdp: bool = False,
) -> L.Trainer:
    """Train ``module`` on data that is set up for ``optim.max_steps`` optimizer steps, ``steps_per_batch`` of them on
    each batch, with a progress bar, TensorBoard logs and a checkpoint in ``folder/model``.

    Raises:
        ValueError: Lightning cannot train so on this machine; the sentence says why.
    """
    if rank_zero_only.rank:
        torch.manual_seed(config.seed + rank_zero_only.rank)  # the weights are those of rank 0, the noise is not
    optim, progress = config.optim, StepProgress()
    precision = set_precision(module, config.precision)
    eval_steps = min(optim.max_steps, config.eval_steps or optim.max_steps)
    if module.automatic_optimization:
        optimization = {
            "accumulate_grad_batches": optim.gradient_accumulation_steps,
            "gradient_clip_val": optim.max_grad_norm,
        }
    else:
        optimization = {}  # the module accumulates and clips
    with quiet():
        try:
            trainer = L.Trainer(
                max_steps=optim.max_steps,
                max_epochs=-1,
                accelerator=config.accelerator,
                precision=precision,
                logger=TensorBoardLogger(folder, name="logs", version=""),
                callbacks=[
                    progress,
                    LearningRateMonitor("step"),
                    CheckpointCallback(folder, save, config.save_steps),
                    *(callbacks or []),
                ],
                log_every_n_steps=config.logging_steps,
                enable_checkpointing=False,
                enable_model_summary=False,
                enable_progress_bar=False,
                num_sanity_val_steps=0,
                check_val_every_n_epoch=None,
                limit_val_batches=1.0 if data.rows["val"] else 0,
                val_check_interval=optim.gradient_accumulation_steps * max(1, eval_steps // steps_per_batch),
                fast_dev_run=config.fast_dev_run,
                **optimization,
                **process_options(config.devices, fsdp),
            )
        except (MisconfigurationException, ValueError) as error:
            raise ValueError(" ".join(str(error).split())) from error
        trainer.fit(module.train(), data)  # a loaded model comes in eval mode
        if data.rows["val"] and not config.fast_dev_run and progress.last_validation < trainer.global_step:
            trainer.validate(module, data, verbose=False)  # skipped batches made the last validation come early
    return trainer


def set_precision(module: TrainingModule, precision: Precision) -> Precision:
    """Prepare a module for a precision of the config; returns the precision for Lightning.

    ``bf16-true`` rounds the weights of the backbone only. Lightning would also round the head, the statistics of the
    target, box coordinates and loss weights.

    Raises:
        ValueError: weights that are rounded already.
    """
    if precision != "bf16-true":
        return precision
    if module.reasoner.backbone.bits:
        raise ValueError(
            "precision='bf16-true' rounds weights that backbone.options.bits has rounded already. Set bf16-mixed."
        )
    for p in module.reasoner.backbone.parameters():  # not buffers: rotary frequencies in bf16 would move positions
        p.data = p.data.bfloat16()
    return "32-true"


def process_options(devices: int | str, fsdp: bool = False) -> dict:
    """How many processes train together, as arguments of a Trainer: all that torchrun started, else one on this
    machine, or ``devices`` of them; each with the whole model or, with ``fsdp``, with a part of it."""
    here, nodes = 1 if devices == "auto" else devices, 1
    if "LOCAL_WORLD_SIZE" in os.environ:
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // here
    # A batch without a sketch leaves the head without a gradient.
    strategy = "ddp_find_unused_parameters_true" if here * nodes > 1 else "auto"
    if fsdp:
        strategy = ModelParallelStrategy(data_parallel_size=here * nodes, tensor_parallel_size=1)
    return {"devices": here, "num_nodes": nodes, "strategy": strategy, "use_distributed_sampler": False}
