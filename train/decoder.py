"""Train a sketch decoder for a model whose eye is frozen: latents of a picture back to the picture.

    python -m train.decoder --config train/recipes/decoder.yaml --init checkpoints/NAME/model --run my-decoder

Writes a new checkpoint: the same model with the new decoder. The tiny model gets its decoder in train.pretrain.
"""

from __future__ import annotations

from pathlib import Path

from latent_reason import checkpoint
from latent_reason.objectives.objective import Objective
from latent_reason.visualization.sketch_decoder import SketchDecoder

from .config import Recipe
from .data import TraceData
from .lit_modules import TrainDecoder
from .trainer import console, fit, run, saver


def train(recipe: Recipe, folder: Path):
    """Run a recipe into a folder; returns (reasoner, decoder). The checkpoint is ``folder/model``."""
    if not recipe.init:
        raise ValueError("a decoder needs a model to look with. Give its checkpoint: --init checkpoints/NAME/model")
    reasoner, decoder = checkpoint.load(recipe.init, device="cpu")
    decoder = decoder or SketchDecoder(latent=reasoner.backbone.width)
    objective = Objective()  # it encodes reading examples; the decoder has a loss of its own
    data = TraceData(recipe.data, reasoner, objective, "reading", recipe.seed, frozen_vision=False)
    data.setup()

    save = saver(recipe, reasoner, decoder)
    fit(recipe, TrainDecoder(reasoner, decoder.train(), recipe.optim), data, folder, save)
    return reasoner, decoder.eval()


def main() -> None:
    if done := run(train, __doc__):
        console.print(f"Checkpoint: {done[1] / 'model'}")


if __name__ == "__main__":
    main()
