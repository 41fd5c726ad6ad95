"""Make the tiny backbone a VLM: it learns to read pictures while its eye and a sketch decoder learn to keep them.

    python -m train.pretrain --config train/recipes/tiny_pretrain.yaml

Only for backbones that start from nothing. A real VLM skips this and trains its decoder with train.decoder.
"""

from __future__ import annotations

from pathlib import Path

from latent_reason.visualization.sketch_decoder import SketchDecoder

from .config import Recipe
from .data import TraceData
from .lit_modules import Pretrain
from .trainer import console, fit, freeze, objective_of, run, saver, start


def train(recipe: Recipe, folder: Path):
    """Run a recipe into a folder; returns (reasoner, decoder). The checkpoint is ``folder/model``."""
    reasoner, decoder = start(recipe)
    decoder = decoder or SketchDecoder(latent=reasoner.backbone.width)
    freeze(reasoner, recipe.trainable)
    objective = objective_of(recipe, reasoner)
    data = TraceData(recipe.data, reasoner, objective, "reading", recipe.seed, frozen_vision=False)
    data.setup()

    save = saver(recipe, reasoner, decoder)
    trainer = fit(
        recipe, Pretrain(reasoner, objective, decoder, recipe.optim, recipe.picture_weight), data, folder, save
    )
    right = trainer.callback_metrics.get("val/right")
    if right is not None and not recipe.fast_dev_run:
        console.print(f"Reading held-out pictures: {float(right):.3f} of the words right.")
    return reasoner.eval(), decoder.eval()


def main() -> None:
    if done := run(train, __doc__):
        console.print(f"Checkpoint: {done[1] / 'model'}")


if __name__ == "__main__":
    main()
