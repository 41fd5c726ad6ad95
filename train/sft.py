"""Teach a reasoner its method on traces: next-token loss + weight x latent loss.

    python -m train.sft --config train/recipes/frozenlake_modal_mixed.yaml --optim.steps 2000 --run my-run
    torchrun --nproc-per-node 8 -m -- train.sft --config ...      # several GPUs: data.batch_size rows on each

Leaves out on purpose: reinforcement learning (train/rl.py) and anything a method file should say.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from latent_reason import checkpoint
from latent_reason.visualization.sketch_decoder import reencode_sketches

from .callbacks import SketchPanel
from .config import Recipe
from .data import TraceData, mode_of
from .lit_modules import Sft
from .trainer import attend, console, fit, freeze, run, saver, start, through_stages


def train(recipe: Recipe, folder: Path):
    """Run a recipe into a folder, stage by stage; returns (reasoner, decoder). The checkpoint is ``folder/model``."""
    return through_stages(recipe, folder, train_stage)


def train_stage(recipe: Recipe, folder: Path):
    """One stage: its model, its data, its steps."""
    reasoner, decoder = start(recipe)
    if recipe.teacher:
        if not hasattr(reasoner, "learn_from"):
            raise ValueError(f"teacher: method {recipe.method.name!r} learns from none. Leave the key out.")
        teacher, _ = checkpoint.load(recipe.teacher)
        attend(teacher, recipe)
        reasoner.learn_from(teacher)
    freeze(reasoner, [p for p in recipe.trainable if p != "head" or reasoner.can_sketch])
    if reasoner.can_sketch and reasoner.exposure.redraw and decoder is not None:
        reasoner.redraw = partial(reencode_sketches, reasoner, decoder)
    if recipe.data.foreign and not (reasoner.taught and reasoner.latent_input == "teacher"):
        raise ValueError(
            f"data.foreign: {recipe.method.name!r} is given no latents of a sketch to go on from. Leave the key out."
        )
    if recipe.method.dropped and not reasoner.droppable:
        raise ValueError(
            f"method.dropped: {recipe.method.name!r}, as it is set, has no latents that can be left out "
            "one by one. Leave the key out."
        )
    reasoner.bottleneck, reasoner.dropped = recipe.method.bottleneck, recipe.method.dropped
    frozen = not {"eye", "connector"} & set(recipe.trainable)
    data = TraceData(recipe.data, reasoner, mode_of(recipe.method.name), recipe.seed, frozen)
    data.setup()
    if reasoner.target is not None and reasoner.taught and not reasoner.target.standardizer.fitted:
        reasoner.target.fit_statistics(data.sketch_features(), recipe.method.centred)

    save = saver(recipe, reasoner, decoder)
    panel = SketchPanel(reasoner, decoder, recipe.data, folder) if not recipe.data.folder else None
    fit(recipe, Sft(reasoner, recipe.optim), data, folder, save, [panel] if panel else None)
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
