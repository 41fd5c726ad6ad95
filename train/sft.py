"""Teach a reasoner its method on traces: next-token loss + weight x latent loss.

    python -m train.sft --config train/recipes/frozenlake_modal_mixed.yaml --optim.steps 2000 --run my-run
    torchrun --nproc-per-node 8 -m -- train.sft --config ...      # several GPUs: data.batch_size rows on each

Leaves out on purpose: reinforcement learning (train/rl.py) and anything a method file should say.
"""

from __future__ import annotations

from pathlib import Path

from latent_reason import checkpoint

from .callbacks import SketchPanel
from .config import Recipe
from .data import TraceData, mode_of
from .lit_modules import Sft
from .trainer import choose_attention, console, fit, freeze, objective_of, run, saver, start, through_stages


def train(recipe: Recipe, folder: Path):
    """Run a recipe into a folder, stage by stage; returns (reasoner, decoder). The checkpoint is ``folder/model``."""
    return through_stages(recipe, folder, train_stage)


def train_stage(recipe: Recipe, folder: Path):
    """One stage: its model, its data, its steps."""
    reasoner, decoder = start(recipe)
    objective = objective_of(recipe, reasoner, decoder)
    if recipe.teacher and not objective.has_teacher:
        raise ValueError(f"teacher: method {recipe.method.name!r} learns from none. Remove the key.")
    if recipe.teacher:
        teacher, _ = checkpoint.load(recipe.teacher)
        objective.set_teacher(teacher)
        choose_attention(teacher, objective, recipe)
    freeze(reasoner, [p for p in recipe.trainable if p != "head" or reasoner.can_sketch])
    if recipe.data.foreign and not (objective.uses_target(reasoner) and objective.latent_input == "teacher"):
        raise ValueError(
            f"data.foreign: {recipe.method.name!r} does not put target latents into the context, so nothing tells how "
            "to continue. Remove the key."
        )
    frozen = not {"eye", "connector"} & set(recipe.trainable)
    data = TraceData(recipe.data, reasoner, objective, mode_of(recipe.method.name), recipe.seed, frozen)
    data.setup()
    if objective.uses_target(reasoner) and not reasoner.target.standardizer.fitted:
        reasoner.target.fit_statistics(data.sketch_features(), recipe.method.centred)

    save = saver(recipe, reasoner, decoder)
    panel = SketchPanel(reasoner, decoder, recipe.data, folder) if not recipe.data.folder else None
    fit(recipe, Sft(reasoner, objective, recipe.optim), data, folder, save, [panel] if panel else None)
    return reasoner.eval(), decoder


def main() -> None:
    if done := run(train, __doc__):
        recipe, folder = done
        model, records = folder / "model", recipe.data.folder
        following = (
            f"eval.probe {model} --folder {records} --out {folder / 'probe.json'}"
            if records
            else f"eval.run {model} --tasks {recipe.data.task} --out {folder / 'eval.json'}"
        )
        console.print(f"Checkpoint: {model}\nNext: python -m {following}")


if __name__ == "__main__":
    main()
