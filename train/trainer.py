"""A run: its folder, its stages, its Trainer and its checkpoint. All training commands share this file."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.environments import ClusterEnvironment, LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from latent_reason import checkpoint
from latent_reason.errors import cli_errors
from latent_reason.files import atomic_write_text
from latent_reason.model.limits import NOTE, InputLimits

from . import sharding
from .averaging import WeightAverage
from .batch_sizes import accumulation_steps, launched
from .checks import check_run
from .config import RunConfig, StagedConfig, complete, dump, folder_of, parse_command_line, stages_of
from .config.groups import Precision
from .config.machine import count_processes
from .data import TraceData
from .lit_modules import TrainingModule
from .logs import make_logger
from .progress import StepProgress, console, quiet
from .saving import RunSaver
from .shared_examples import NAME as SHARED_EXAMPLES
from .throughput import Throughput

LOCK = ".lock"  # in the folder of a run that is trained
VALIDATIONS = 4  # of a run whose config does not say how often
MIN_EVAL_STEPS = 50  # between two of these
LATENT_POSITIONS = {"line": "1d", "grid": "2d"}  # recipe -> library


def run_training(
    train: Callable[[RunConfig, Path], object], config_class: type[RunConfig], description: str
) -> tuple[RunConfig, Path] | None:
    """What every ``python -m train.NAME`` does: parse the config, make the run folder, train into it.

    An error is one sentence. A run that left nothing to keep (an error before the first step, a trial with
    ``--fast_dev_run``) removes its folder, and the trial returns None. A run that is resumed after its end only returns.
    ``--dry_run`` prints what the run needs and returns None.
    """
    config = parse_command_line(config_class, description)
    with cli_errors():
        check_launch(config)
        if isinstance(config, StagedConfig) and config.dry_run:
            return print_plan(config)
        folder = folder_of(config.run_name)
        if config.resume and (folder / "model").is_dir():
            console.print(f"The run in '{folder}' has ended; its model is there.")
            return config, folder
        check_run(config, launched(config))
        make_run_folder(config)
        try:
            with locked(folder):
                train(config, folder)
        finally:
            if rank_zero_only.rank == 0 and {p.name for p in folder.iterdir()} <= {"recipe.yaml", SHARED_EXAMPLES}:
                shutil.rmtree(folder)
        if not config.fast_dev_run:
            return config, folder
        console.print("One batch went through training and validation. Nothing was kept.")
        return None


@rank_zero_only
def print_plan(config: StagedConfig) -> None:
    """Print what a run needs (:func:`train.plan.dry_run`). Raises ValueError where it does not fit."""
    from .plan import dry_run  # which imports this file

    dry_run(config, launched(config))


def check_launch(config: RunConfig) -> None:
    """Raises ValueError where SLURM started several unconnected copies of this command, or where processes cannot form the
    groups of a config."""
    sharding.check_groups(getattr(config, "tensor_parallel_size", 1), launched(config))
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS") or 1)
    if tasks > 1 and "LOCAL_WORLD_SIZE" not in os.environ:
        raise ValueError(
            f"srun started {tasks} tasks of this command, which would train {tasks} copies. Start one task on each node, "
            "and let torchrun start the processes: srun --ntasks-per-node=1 torchrun --nnodes $SLURM_NNODES "
            "--nproc-per-node GPUS --rdzv-backend c10d --rdzv-endpoint $HOST:29500 -m -- train.sft ... (train/slurm/)."
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from training into a folder. The system frees the lock of a process that ends.

    Raises:
        FileExistsError: another process trains into it.
    """
    if rank_zero_only.rank:
        yield
        return
    with open(folder / LOCK, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(f"another process trains into '{folder}'. Wait for it, or stop it first.") from None
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)


def make_run_folder(config: RunConfig) -> Path:
    """Make the folder of a run and write the resolved config into it, with all options of its methods; of several
    processes, the first does so. The folder of a resumed run is there.

    Raises:
        FileExistsError: the folder exists; nothing in it is touched.
    """
    folder = folder_of(config.run_name)
    if rank_zero_only.rank or (config.resume and (folder / "recipe.yaml").is_file()):
        return folder
    whole = complete(config)
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise FileExistsError(
            f"run folder '{folder}' exists. Continue that run with --resume {folder}, set another --run_name, or move the "
            "folder; nothing was touched."
        ) from None
    atomic_write_text(folder / "recipe.yaml", dump(whole))
    return folder


def train_stages(config: StagedConfig, folder: Path, train_stage: Callable[[StagedConfig, Path], tuple]):
    """Call ``train_stage`` for every stage of a config, each from the model of the stage before; return what the last
    call returns. Earlier stages are kept in ``folder/stage-1`` and so on. A resumed run passes over stages that have
    ended."""
    *earlier, last = stages_of(config)[: 1 if config.fast_dev_run else None]
    start = {}
    for number, stage in enumerate(earlier, 1):
        console.rule(f"stage {number} of {len(earlier) + 1}")
        stage = replace(stage, run_name=str(folder / f"stage-{number}"), **start)
        if not (config.resume and (Path(stage.run_name) / "model").is_dir()):
            train_stage(stage, make_run_folder(stage))
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # the first process writes what all read next
        start = {"init_from": f"{stage.run_name}/model"}
    if earlier:
        console.rule(f"stage {len(earlier) + 1} of {len(earlier) + 1}")
    return train_stage(replace(last, **start), folder)


def training_notes(config: RunConfig) -> dict:
    """What a checkpoint remembers of its training."""
    data, folder = config.data, getattr(config.data, "folder", None)
    backbone = checkpoint.read_config(config.init_from)["notes"].get("backbone") if config.init_from else None
    return {
        "run": config.run_name,
        "seed": config.seed,
        "steps": config.optim.max_steps,
        "ema_decay": config.optim.ema_decay,
        "batch_size": data.global_batch_size,
        "init": config.init_from,
        "backbone": backbone if config.init_from else config.backbone.name,
        "data": {
            "task": None if folder else data.task,  # a run on records does not use these
            "folder": folder,
            "levels": None if folder else data.levels,
            "items": data.items,
            "options": {} if folder else data.options,
            **({"baseline": baseline} if (baseline := getattr(data, "baseline", None)) else {}),
        },
    }


def make_saver(config: RunConfig, reasoner, decoder) -> Callable[..., Path | None]:
    """``save(folder)`` writes the whole checkpoint, with other ``weights`` where they are given; of several processes,
    the first does so."""

    limits = InputLimits.of(reasoner.backbone).to_json()
    notes = training_notes(config) | {NOTE: limits}

    @rank_zero_only
    def save(where: Path, weights: dict[str, torch.Tensor] | None = None) -> Path:
        return checkpoint.save(reasoner, where, decoder=decoder, notes=notes, weights=weights)

    return save


def fit(
    config: RunConfig,
    module: TrainingModule,
    data: TraceData,
    folder: Path,
    save: Callable[..., Path | None],
    callbacks: list[Callback] | None = None,
    steps_per_batch: int = 1,
) -> L.Trainer:
    """Train ``module`` on data that is set up for ``optim.max_steps`` optimizer steps, ``steps_per_batch`` of them on
    each batch, with a progress bar, logs and a checkpoint in ``folder/model``.

    Raises:
        ValueError: Lightning cannot train so on this machine; the sentence says why.
    """
    optim, progress, logger = config.optim, StepProgress(), make_logger(config, folder)
    saver = RunSaver(folder, save, config.save_steps, config.save_total_limit, bool(config.resume), config.seed)
    precision = set_precision(module, config.precision)
    eval_steps = steps_between_validations(config.eval_steps, optim.max_steps)
    accumulation = accumulation_steps(config, launched(config)) if module.automatic_optimization else 1
    if module.automatic_optimization:
        optimization = {
            "accumulate_grad_batches": accumulation,
            "gradient_clip_val": optim.max_grad_norm,
        }
    else:
        optimization = {}  # the module clips
    with quiet():
        try:
            trainer = L.Trainer(
                max_steps=optim.max_steps,
                max_epochs=-1,
                accelerator=config.accelerator,
                precision=precision,
                logger=logger,
                default_root_dir=folder,
                plugins=process_environment(),
                callbacks=[
                    progress,
                    Throughput(),
                    *([WeightAverage(optim.ema_decay)] if optim.ema_decay else []),
                    *(callbacks or []),
                    saver,  # the last one: a state holds what the others have done in a step
                ],
                log_every_n_steps=config.logging_steps,
                enable_checkpointing=False,
                enable_model_summary=False,
                enable_progress_bar=False,
                num_sanity_val_steps=0,
                check_val_every_n_epoch=None,
                limit_val_batches=1.0 if data.rows["val"] else 0,
                val_check_interval=accumulation * max(1, eval_steps // steps_per_batch),
                fast_dev_run=config.fast_dev_run,
                **optimization,
                **process_options(config),
            )
        except (MisconfigurationException, ValueError) as error:
            raise ValueError(" ".join(str(error).split())) from error
        with logger:
            trainer.fit(module.train(), data)  # a loaded model comes in eval mode
            if data.rows["val"] and not config.fast_dev_run and progress.last_validation < trainer.global_step:
                trainer.validate(module, data, verbose=False)  # the last validation came before the last step
    saver.raise_if_stopped()
    return trainer


def steps_between_validations(eval_steps: int, max_steps: int) -> int:
    """The key ``eval_steps`` as a number of steps; 0 are four validations in a run, at least 50 steps apart."""
    return min(max_steps, eval_steps or max(MIN_EVAL_STEPS, math.ceil(max_steps / VALIDATIONS)))


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


def process_environment() -> ClusterEnvironment:
    """Who starts the processes: torchrun, or Lightning. Never SLURM alone, for which Lightning would install signal
    handlers, and resume from any file of a former job that lies in the working folder."""
    return TorchElasticEnvironment() if "LOCAL_WORLD_SIZE" in os.environ else LightningEnvironment()


def process_options(config: RunConfig) -> dict:
    """How many processes train together, as arguments of a Trainer: all that torchrun started, else one on this
    machine, or ``devices`` of them; each with the whole model or, with ``fsdp``, with a part of it.

    Raises:
        ValueError: groups of ``tensor_parallel_size`` processes do not come out even.
    """
    here, nodes = count_processes(config)
    strategy = "auto"
    if isinstance(config, StagedConfig) and config.fsdp:
        strategy = sharding.make_strategy(config, here * nodes)
    elif here * nodes > 1:  # gradients are views of what the processes add up, instead of being copied to it
        strategy = DDPStrategy(gradient_as_bucket_view=True)
    return {"devices": here, "num_nodes": nodes, "strategy": strategy, "use_distributed_sampler": False}
