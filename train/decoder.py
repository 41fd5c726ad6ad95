"""Train a sketch decoder for a model whose eye is frozen: latents of a picture back to the picture.

    python -m train.decoder --config train/recipes/decoder.yaml --init checkpoints/NAME/model --run my-decoder

Writes a new checkpoint: the same model with the new decoder. The tiny model gets its decoder in train.pretrain.
"""

from __future__ import annotations

from pathlib import Path

from latent_reason import hub
from latent_reason.rendering import SketchDecoder

from .data import TraceData
from .module import TrainDecoder, with_pictures
from .recipe import Recipe, parse
from .run import console, fit, notes, run_folder


def train(recipe: Recipe, folder: Path):
    """Run a recipe into a folder; returns (reasoner, decoder). The checkpoint is ``folder/model``."""
    if not recipe.init:
        raise SystemExit("a decoder needs a model to look with. Give its checkpoint: --init checkpoints/NAME/model")
    reasoner, decoder = hub.load(recipe.init, device="cpu")
    decoder = decoder or SketchDecoder(latent=reasoner.backbone.width)
    data = TraceData(recipe.data, reasoner, "reading", recipe.seed, frozen_eye=False)
    data.setup()
    data.collate = with_pictures(data.collate)

    def save(where: Path) -> Path:
        return hub.save(reasoner, where, decoder=decoder, notes=notes(recipe))

    fit(recipe, TrainDecoder(reasoner, decoder.train(), recipe.optim), data, folder, save)
    if not recipe.fast_dev_run:
        save(folder / "model")
    return reasoner, decoder.eval()


def main() -> None:
    recipe = parse(description=__doc__)
    folder = run_folder(recipe)
    train(recipe, folder)
    console.print(f"Checkpoint: {folder / 'model'}")


if __name__ == "__main__":
    main()
