"""Train a sketch decoder for a model with a frozen vision encoder: latents of an image back to the image.

    python -m train.decoder --config train/recipes/decoder.yaml --init_from checkpoints/NAME/model --run_name my-decoder

Writes a new checkpoint: the same model with the new decoder. The tiny model gets its decoder in train.pretrain.
"""

from __future__ import annotations

from .config import DecoderConfig, answer_help

if __name__ == "__main__":
    answer_help(DecoderConfig, __doc__)  # before torch is imported

from pathlib import Path

from latent_reason import checkpoint
from latent_reason.objectives.objective import Objective
from latent_reason.visualization.sketch_decoder import SketchDecoder

from .batch_sizes import launched, with_micro_batch
from .data import reading_data
from .drawing_modules import DecoderModule
from .trainer import console, fit, make_saver, run_training


def train(config: DecoderConfig, folder: Path):
    """Train a config into a folder; returns (reasoner, decoder). The checkpoint is ``folder/model``."""
    if not config.init_from:
        raise ValueError("a decoder needs the model that it decodes. Set --init_from checkpoints/NAME/model")
    config = with_micro_batch(config, launched(config))
    reasoner, decoder = checkpoint.load(config.init_from, device="cpu")
    decoder = decoder or SketchDecoder(latent=reasoner.backbone.width)
    objective = Objective()  # it encodes reading examples; the decoder has a loss of its own
    data = reading_data(config, reasoner, objective, folder)

    module = DecoderModule(reasoner, decoder.train(), config.optim)
    fit(config, module, data, folder, make_saver(config, reasoner, decoder))
    data.release()
    return reasoner, decoder.eval()


def main() -> None:
    if done := run_training(train, DecoderConfig, __doc__):
        console.print(f"Checkpoint: {done[1] / 'model'}")


if __name__ == "__main__":
    main()
