"""A run: its folder, its trainer, its checkpoint. What sft, pretrain and decoder share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, LearningRateMonitor
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from rich.table import Table

from latent_reason import checkpoint, methods
from latent_reason.errors import cli_errors
from latent_reason.imports import import_object, is_dotted_path
from latent_reason.model import adapters, backbones
from latent_reason.model.backbones.attention import Choice, set_attention
from latent_reason.model.reasoner import LatentReasoner
from latent_reason.objectives.objective import Objective, RunOptions
from latent_reason.visualization.sketch_decoder import SketchDecoder, reencode_sketches

from . import sharding
from .config import Recipe, dump, parse, staged
from .data import TraceData, corpus
from .lit_modules import Stepper, parameter_table, set_trainable
from .progress import Steps, console, quiet

ROOT = Path("checkpoints")
LATENT_POSITIONS = {"line": "1d", "grid": "2d"}  # recipe -> library


def run(train: Callable[[Recipe, Path], object], description: str) -> tuple[Recipe, Path] | None:
    """What every ``python -m train.NAME`` does: read the recipe, make the run folder, train into it.

    What goes wrong is one sentence. A run that left nothing to keep (an error before the first step, a trial with
    ``--fast_dev_run``) takes its folder away again, and the trial returns None.
    """
    with cli_errors():
        recipe = parse(description=description)
        folder = run_folder(recipe)
        try:
            train(recipe, folder)
        finally:
            if rank_zero_only.rank == 0 and {p.name for p in folder.iterdir()} == {"recipe.yaml"}:
                shutil.rmtree(folder)
        if not recipe.fast_dev_run:
            return recipe, folder
        console.print("One batch went through training and validation. Nothing was kept.")
        return None


def run_folder(recipe: Recipe) -> Path:
    """Make ``checkpoints/RUN`` and leave the resolved recipe in it; of several processes, one does so.

    Raises:
        FileExistsError: it is there already; nothing of it is touched.
    """
    folder = Path(recipe.run) if "/" in recipe.run else ROOT / recipe.run
    if rank_zero_only.rank:
        return folder
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise FileExistsError(
            f"run folder '{folder}' exists. Give another name with --run, or move it away; nothing was touched."
        ) from None
    (folder / "recipe.yaml").write_text(dump(recipe), encoding="utf-8")
    return folder


def through_stages(recipe: Recipe, folder: Path, train_stage: Callable[[Recipe, Path], tuple]):
    """``train_stage`` for every stage of a recipe, each from the model of the one before; returns what the last does.
    What earlier stages leave is in ``folder/stage-1`` and so on."""
    *earlier, last = staged(recipe)[: 1 if recipe.fast_dev_run else None]
    for number, stage in enumerate(earlier, 1):
        console.rule(f"stage {number} of {len(earlier) + 1}")
        stage.run = str(folder / f"stage-{number}")
        train_stage(stage, run_folder(stage))
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # one process writes what all read next
        after = earlier[number] if number < len(earlier) else last
        after.init = f"{stage.run}/model"
    if earlier:
        console.rule(f"stage {len(earlier) + 1} of {len(earlier) + 1}")
    return train_stage(last, folder)


def start(recipe: Recipe, whole: bool = False):
    """(reasoner, decoder or None) a recipe begins with: from a checkpoint, or from a backbone by name. ``whole`` wants
    a checkpoint that has learnt all of it.

    Raises:
        ValueError: it has not, and ``whole``; names what the recipe has otherwise. Weights in 4 bits that were to be
            trained; another adapter than the checkpoint's.
    """
    L.seed_everything(recipe.seed, verbose=False)
    if torch.cuda.is_available() and recipe.accelerator in ("auto", "gpu", "cuda"):
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    loaded = decoder = None
    import_plugins(recipe)
    if recipe.init:
        loaded, decoder = checkpoint.load(recipe.init, device="cpu")
        backbone = loaded.backbone
        wanted = LATENT_POSITIONS.get(recipe.backbone.positions, recipe.backbone.positions)
        if whole and backbone.latent_positions != wanted:
            raise ValueError(
                f"backbone.positions={recipe.backbone.positions!r}: '{recipe.init}' was taught with "
                f"{backbone.latent_positions!r}. Set that."
            )
        backbone.set_latent_positions(wanted)
    else:
        options = dict(recipe.backbone.options)
        if recipe.backbone.name.startswith("tiny") and "corpus" not in options:
            options["corpus"] = corpus(recipe.data)
        if options.get("bits") and recipe.backbone.name.startswith("tiny"):
            raise ValueError("backbone.options.bits rounds weights that are read; those of a tiny model are made here.")
        if options.get("bits") and not recipe.lora.rank:
            raise ValueError(
                "backbone.options.bits rounds weights for good: they train through an adapter alone. Add "
                "one with lora.rank, such as 16."
            )
        backbone = backbones.load_backbone(
            recipe.backbone.name, latent_positions=LATENT_POSITIONS[recipe.backbone.positions], **options
        )
    reasoner = methods.build_method(recipe.method.name, backbone, **recipe.method.options)
    same = loaded is not None and loaded.method.name == reasoner.method.name
    anew = go_on(reasoner, loaded) if same else set()
    if whole and not same:
        raise ValueError(
            f"method.name={recipe.method.name!r}: '{recipe.init}' was taught {loaded.method.name!r}. "
            "Set that, with its options."
        )
    if whole and anew:
        raise ValueError(
            f"method.options: '{recipe.init}' was taught with {loaded.method.options}, so its "
            f"{' and '.join(sorted(anew))} would start anew. Set those options."
        )
    if anew:
        console.print(f"Of another kind or size than before, so it starts anew: {', '.join(sorted(anew))}")
    if recipe.backbone.checkpointing:
        backbone.set_gradient_checkpointing()
    if recipe.lora.rank and not adapters.has_adapter(reasoner, **asdict(recipe.lora)):
        adapters.add(reasoner, **asdict(recipe.lora))
    if torch.cuda.is_available() and recipe.accelerator in ("auto", "gpu", "cuda"):
        reasoner.cuda(int(os.environ.get("LOCAL_RANK", 0)))
    choice = choose_attention(reasoner, objective_of(recipe, reasoner), recipe)
    console.print(f"attention: {choice.name} ({choice.reason})")
    return reasoner, decoder


def import_plugins(recipe: Recipe) -> None:
    """Import the modules of a user's own package that a recipe names: a checkpoint may then name them, too."""
    methods.load(recipe.method.name)
    head = recipe.method.options.get("head")
    if isinstance(head, str) and is_dotted_path(head):
        import_object(head, "head")


def objective_of(recipe: Recipe, reasoner: LatentReasoner, decoder: SketchDecoder | None = None) -> Objective:
    """The objective of a recipe for its model. Raises ValueError for options the method does not support."""
    run = RunOptions(
        attention_bottleneck_prob=recipe.method.bottleneck,
        latent_dropout=recipe.method.dropped,
        reencode=None if decoder is None else partial(reencode_sketches, decoder=decoder),
    )
    return methods.objective_of(reasoner, run)


def choose_attention(reasoner: LatentReasoner, objective: Objective, recipe: Recipe) -> Choice:
    """Set the attention of a model, or of its teacher, for training with an objective."""
    packs_unrolled = recipe.data.pack > 0 and reasoner.can_sketch and objective.unrolls_latents
    needs_mask = objective.needs_attention_mask or packs_unrolled
    return set_attention(reasoner.backbone, recipe.backbone.attn, needs_mask=needs_mask)


def go_on(reasoner, loaded) -> set[str]:
    """Take over what an earlier run of the same method learnt: the backbone is there already; head and target each as a
    whole or not at all (half a set of statistics would be wrong). What comes back has to start anew."""
    old, new = ({n: t for n, t in r.state_dict().items() if not n.startswith("backbone.")} for r in (loaded, reasoner))
    anew = {n.partition(".")[0] for n in old.keys() ^ new.keys()}
    anew |= {n.partition(".")[0] for n in old.keys() & new.keys() if old[n].shape != new[n].shape}
    was, now = (r.method.options for r in (loaded, reasoner))
    if any(was.get(name) != now.get(name) for name in ("head", "head_options")):
        anew.add("head")  # a head of another kind may have weights of the same shapes
    kept = {n: t for n, t in old.items() if n.partition(".")[0] not in anew}
    reasoner.load_state_dict(kept, strict=False)
    return anew & {n.partition(".")[0] for n in new}


def freeze(reasoner, parts: list[str]) -> None:
    """Train these parts only, and say so in a table."""
    set_trainable(reasoner, parts)
    table = Table(title=f"{reasoner.method.name}: what trains")
    for title in ("part", "parameters", "trainable"):
        table.add_column(title, justify="left" if title == "part" else "right")
    for part, total, trainable in parameter_table(reasoner):
        table.add_row(part, f"{total:,}", f"{trainable:,}")
    console.print(table)


def notes(recipe: Recipe) -> dict:
    """What a checkpoint remembers of its training."""
    data = recipe.data
    backbone = checkpoint.read_config(recipe.init)["notes"].get("backbone") if recipe.init else recipe.backbone.name
    return {
        "run": recipe.run,
        "seed": recipe.seed,
        "steps": recipe.optim.steps,
        "batch_size": data.batch_size,
        "init": recipe.init,
        "backbone": backbone,
        "data": {
            "task": data.task,
            "folder": data.folder,
            "levels": data.levels,
            "items": data.items,
            "options": data.options,
        },
    }


def saver(recipe: Recipe, reasoner, decoder) -> Callable[..., Path | None]:
    """``save(folder)`` writes the whole checkpoint, with other ``weights`` where they are given; of several processes,
    one does so."""

    @rank_zero_only
    def save(where: Path, weights: dict[str, torch.Tensor] | None = None) -> Path:
        return checkpoint.save(reasoner, where, decoder=decoder, notes=notes(recipe), weights=weights)

    return save


class Saving(Callback):
    """What was learnt is written at the end, as the folder's ``model``, and before that ``every`` so many steps (0:
    never), the last time alone being kept; at Ctrl-C, or an error, beside it, whole."""

    def __init__(self, folder: Path, save, every: int = 0):
        self.folder, self.save, self.every, self.ended = folder, save, every, False
        self.last: Path | None = None

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        step = trainer.global_step
        where = self.folder / f"step-{step}"
        if self.every and step and step % self.every == 0 and step < trainer.max_steps and where != self.last:
            self.written(module, where)
            self.last = where

    def on_train_end(self, trainer, module):
        self.ended = True
        if not trainer.fast_dev_run:
            self.written(module, self.folder / "model")

    def written(self, module, where: Path) -> None:
        """Save, and drop what was saved before that."""
        self.save(where, sharding.gathered(module.reasoner) if module.sharded else None)
        if self.last is not None and rank_zero_only.rank == 0:
            shutil.rmtree(self.last)

    def on_exception(self, trainer, module, exception):
        if self.ended:
            return  # it could not be saved, and cannot be now
        if trainer.is_global_zero and module.sharded:
            kept = f"'{self.last}' is what is kept" if self.last else "nothing was kept. Set save_every"
            console.print(
                f"Stopped at step {trainer.global_step} ({type(exception).__name__}). The weights are split "
                f"among processes that can no longer be joined: {kept}.",
                style="yellow",
            )
        elif trainer.is_global_zero and not trainer.global_step:
            console.print(
                f"Stopped before the first step ({type(exception).__name__}). Nothing was learnt.", style="yellow"
            )
        elif trainer.is_global_zero:
            where = self.save(self.folder / "interrupted")
            console.print(
                f"Stopped at step {trainer.global_step} ({type(exception).__name__}). What was learnt so far "
                f"is in '{where}'. Go on from it with --init {where}",
                style="yellow",
            )


def fit(
    recipe: Recipe,
    module: Stepper,
    data: TraceData,
    folder: Path,
    save,
    callbacks: list[Callback] | None = None,
    updates: int = 1,
) -> L.Trainer:
    """Train ``module`` on data that is set up for ``optim.steps`` steps, ``updates`` of them a batch, with a bar,
    TensorBoard logs and a safe stop; what was learnt is saved as ``folder/model``.

    Raises:
        ValueError: Lightning cannot train so on this machine, or the model cannot be split; its sentence says why.
    """
    if recipe.sharded:
        sharding.refuse(recipe, module)
    if rank_zero_only.rank:
        torch.manual_seed(recipe.seed + rank_zero_only.rank)  # the weights are those of rank 0, the noise is not
    look, steps = recipe.sketch_every or recipe.optim.steps, Steps()
    with quiet():
        try:
            trainer = L.Trainer(
                max_steps=recipe.optim.steps,
                max_epochs=-1,
                accelerator=recipe.accelerator,
                precision=recipe.precision,
                logger=TensorBoardLogger(folder, name="logs", version=""),
                callbacks=[
                    steps,
                    LearningRateMonitor("step"),
                    Saving(folder, save, recipe.save_every),
                    *(callbacks or []),
                ],
                log_every_n_steps=recipe.log_every,
                enable_checkpointing=False,
                enable_model_summary=False,
                enable_progress_bar=False,
                num_sanity_val_steps=0,
                check_val_every_n_epoch=None,
                limit_val_batches=1.0 if data.rows["val"] else 0,
                val_check_interval=recipe.optim.accumulate * max(1, min(recipe.optim.steps, look) // updates),
                fast_dev_run=recipe.fast_dev_run,
                **processes(recipe.devices, recipe.sharded),
            )
        except (MisconfigurationException, ValueError) as error:
            raise ValueError(" ".join(str(error).split())) from error
        trainer.fit(module.train(), data)  # a loaded model comes in eval mode
        if data.rows["val"] and not recipe.fast_dev_run and steps.looked < trainer.global_step:
            trainer.validate(module, data, verbose=False)  # batches that taught nothing made the last look come early
    return trainer


def processes(devices: str, sharded: bool = False) -> dict:
    """How many processes train together, as arguments of a Trainer: all that torchrun started, else one on this
    machine, or ``devices`` of them; each with the whole model or, ``sharded``, with a part of it.

    Raises:
        ValueError: ``devices`` is neither ``auto`` nor a number.
    """
    if devices != "auto" and not devices.isdigit():
        raise ValueError(f"devices={devices!r}: 'auto' or a number.")
    here, nodes = 1 if devices == "auto" else int(devices), 1
    if "LOCAL_WORLD_SIZE" in os.environ:
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // here
    # A batch without a sketch leaves the head without a gradient.
    strategy = "ddp_find_unused_parameters_true" if here * nodes > 1 else "auto"
    if sharded:
        strategy = ModelParallelStrategy(data_parallel_size=here * nodes, tensor_parallel_size=1)
    return {"devices": here, "num_nodes": nodes, "strategy": strategy, "use_distributed_sampler": False}
