"""What can be known of a run before any of it is trained. Every stage is checked before the first one begins."""

from __future__ import annotations

from eval.baselines import make_baseline
from eval.turns.episodes import check_code
from latent_reason import checkpoint, methods
from latent_reason.data import native, texts
from latent_reason.tasks import Task

from .batch_sizes import check_batch_sizes
from .config import ModelConfig, RunConfig, SFTConfig, stages_of
from .lit_modules import check_trainable
from .traces import kept, make_task


def check_run(config: RunConfig, processes: int) -> None:
    """Check every stage of a config for so many processes.

    Raises:
        ValueError, FileNotFoundError: what a stage could not begin with; names the stage.
    """
    stages = stages_of(config) if hasattr(config, "stages") else [config]
    for number, stage in enumerate(stages, 1):
        where = f"stage {number}: " if stages[1:] else ""
        try:
            check_stage(stage, processes)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{where}{error}") from None
        except ValueError as error:
            raise ValueError(f"{where}{error}") from None


def check_stage(config: RunConfig, processes: int) -> None:
    """Check the batch sizes, the method's options, the parts that train, and the task or the files of a config. Raises as
    :func:`check_run`."""
    check_batch_sizes(config, processes)
    if isinstance(config, ModelConfig):
        methods.check_options(config.method.name, config.method.options)
        if config.lora.rank or not config.init_from:  # an adapter may also be that of the checkpoint
            check_trainable(config.trainable, has_adapter=config.lora.rank > 0)
    check_items(config)
    if getattr(config, "teacher", None):
        check_teacher(config)
    others = getattr(config, "teacher", None), getattr(getattr(config, "rl", None), "ref_model", None)
    for folder in filter(None, (config.init_from, *others)):
        checkpoint.read_config(folder)


def check_teacher(config: SFTConfig) -> None:
    """Raises ValueError if the method of a config learns from no teacher."""
    if not methods.build_objective(config.method.name, **config.method.options).has_teacher:
        raise ValueError(f"teacher: method {config.method.name!r} has no teacher. Remove the key.")


def check_items(config: RunConfig) -> None:
    """Check that the records are there, or that the task takes its options and levels."""
    data = config.data
    if getattr(data, "folder", None):
        native.list_files(data.folder)
    else:
        task = make_task(data, "train")
        if getattr(data, "baseline", None):
            check_baseline_of(config, task)
        if getattr(data, "include_ids", None):
            kept(data, 1)
    if getattr(data, "replay_texts", None):
        texts.lines(data.replay_texts)
    if getattr(data, "replay_folder", None):
        native.list_files(data.replay_folder)


def check_baseline_of(config: RunConfig, task: Task) -> None:
    """Raises ValueError if the baseline of a config has no demonstrations of its task, or could not be measured: code
    cannot be run here, or sketches cannot be rendered."""
    baseline = make_baseline(config.data.baseline)
    baseline.demonstrate(task, task[0])
    check_code(baseline, runs_code=True)
    if baseline.RENDERS and (not config.init_from or not checkpoint.read_config(config.init_from).get("decoder")):
        raise ValueError(
            f"data.baseline: {baseline.name!r} renders sketches, and {config.init_from or 'a new model'} has no sketch decoder. "
            "Begin with a checkpoint that has one, such as a run of train.pretrain."
        )
