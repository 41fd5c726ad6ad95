"""Pretraining of the tiny backbone: it learns to answer questions about images, while its vision encoder and a sketch
decoder learn to reconstruct them.

    python -m train.pretrain --config train/recipes/tiny_pretrain.yaml

Only for backbones with random weights. A pretrained VLM skips this and trains its decoder with train.decoder.
"""

from __future__ import annotations

from .config import PretrainConfig, answer_help

if __name__ == "__main__":
    answer_help(PretrainConfig, __doc__)  # before torch is imported

from pathlib import Path

from latent_reason.visualization.sketch_decoder import SketchDecoder

from .batch_sizes import launched, with_micro_batch
from .data import reading_data
from .drawing_modules import PretrainModule
from .model_setup import build_objective, choose_attention, freeze_all_but, prepare_model
from .trainer import console, fit, make_saver, run_training


def train(config: PretrainConfig, folder: Path):
    """Train a config into a folder; returns (reasoner, decoder). The checkpoint is ``folder/model``."""
    config = with_micro_batch(config, launched(config))
    reasoner, decoder = prepare_model(config)
    objective = build_objective(config, reasoner)
    choose_attention(reasoner, config, objective)
    decoder = decoder or SketchDecoder(latent=reasoner.backbone.width)
    freeze_all_but(reasoner, config.trainable)
    data = reading_data(config, reasoner, objective, folder)

    module = PretrainModule(reasoner, objective, decoder, config.optim, config.reconstruction_weight)
    trainer = fit(config, module, data, folder, make_saver(config, reasoner, decoder))
    data.release()
    accuracy = trainer.callback_metrics.get("val/token_accuracy")
    if accuracy is not None and not config.fast_dev_run:
        console.print(f"Answers about held-out images: {float(accuracy):.3f} of the tokens are right.")
    return reasoner.eval(), decoder.eval()


def main() -> None:
    if done := run_training(train, PretrainConfig, __doc__):
        console.print(f"Checkpoint: {done[1] / 'model'}")


if __name__ == "__main__":
    main()
