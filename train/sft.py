"""Supervised fine-tuning: train a method on traces with the sum of its text, latent and stop losses.

    python -m train.sft --config train/recipes/frozenlake_modal_mixed.yaml --optim.max_steps 2000 --run_name my-run
    torchrun --nproc-per-node 8 -m -- train.sft --config ...      # several GPUs: data.batch_size rows on each

Not here: reinforcement learning (train.rl), and what a method file defines.
"""

from __future__ import annotations

from pathlib import Path

from latent_reason import checkpoint

from . import sharding
from .callbacks import SketchPanel
from .config import SFTConfig
from .data import TraceData, mode_of
from .lit_modules import SFTModule
from .model_setup import choose_attention, freeze_all_but, prepare_model
from .trainer import console, fit, make_saver, run_training, train_stages


def train(config: SFTConfig, folder: Path):
    """Train a config into a folder, stage by stage; returns (reasoner, decoder). The checkpoint is ``folder/model``."""
    return train_stages(config, folder, train_stage)


def train_stage(config: SFTConfig, folder: Path):
    """Train one stage; returns (reasoner, decoder)."""
    reasoner, decoder = prepare_model(config)
    choose_attention(reasoner, config, needs_masks(reasoner, config))
    if config.teacher:
        load_teacher(reasoner, config)
    check_method_options(reasoner, config)
    freeze_all_but(reasoner, config.trainable)
    reasoner.bottleneck, reasoner.dropped = config.method.attention_bottleneck_prob, config.method.latent_dropout
    has_frozen_encoder = not {"vision_encoder", "connector"} & set(config.trainable)
    data = TraceData(config.data, reasoner, mode_of(config.method.name), config.seed, has_frozen_encoder)
    data.setup()
    if reasoner.target is not None and reasoner.taught and not reasoner.target.standardizer.fitted:
        reasoner.target.fit_statistics(data.sketch_features(), config.method.center_targets)

    module = SFTModule(reasoner, config.optim)
    if config.fsdp:
        sharding.check_supported(config, module)
    panels = [] if config.data.folder else [SketchPanel(reasoner, decoder, config.data, folder)]
    fit(config, module, data, folder, make_saver(config, reasoner, decoder), panels, fsdp=config.fsdp)
    return reasoner.eval(), decoder


def needs_masks(reasoner, config: SFTConfig) -> bool:
    """Whether the run masks attention beyond what the method does by itself."""
    is_packed_and_unrolled = config.data.packing_length > 0 and reasoner.unrolls
    return config.method.attention_bottleneck_prob > 0 or is_packed_and_unrolled


def load_teacher(reasoner, config: SFTConfig) -> None:
    """Load the checkpoint that a method learns from. Raises ValueError for a method without a teacher."""
    if not hasattr(reasoner, "learn_from"):
        raise ValueError(f"teacher: method {config.method.name!r} has no teacher. Remove the key.")
    teacher, _ = checkpoint.load(config.teacher)
    choose_attention(teacher, config, needs_masks(reasoner, config))
    reasoner.learn_from(teacher)


def check_method_options(reasoner, config: SFTConfig) -> None:
    """Raises ValueError for keys that the method cannot follow."""
    if config.data.swap_image_prob and not (reasoner.taught and reasoner.latent_input == "teacher"):
        raise ValueError(
            f"data.swap_image_prob: {config.method.name!r} gets no target latents to go on from. Remove the key."
        )
    if config.method.latent_dropout and not reasoner.droppable:
        raise ValueError(
            f"method.latent_dropout: {config.method.name!r} with these options has no latents that can be left out one "
            "by one. Remove the key."
        )


def main() -> None:
    if done := run_training(train, SFTConfig, __doc__):
        config, folder = done
        model, records = folder / "model", config.data.folder
        following = (
            f"eval.probe {model} --folder {records} --out {folder / 'probe.json'}"
            if records
            else f"eval.run {model} --tasks {config.data.task} --out {folder / 'eval.json'}"
        )
        console.print(f"Checkpoint: {model}\nNext: python -m {following}")


if __name__ == "__main__":
    main()
