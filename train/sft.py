"""Supervised fine-tuning: train a method on traces with the sum of its text, latent and stop losses.

    python -m train.sft --config train/recipes/frozenlake_modal_mixed.yaml --optim.max_steps 2000 --run_name my-run
    torchrun --nproc-per-node 8 -m -- train.sft --config ...      # several GPUs share data.global_batch_size rows

Not here: reinforcement learning (train.rl), and what a method file defines.
"""

from __future__ import annotations

from .config import SFTConfig, answer_help

if __name__ == "__main__":
    answer_help(SFTConfig, __doc__)  # before torch is imported

from pathlib import Path

from lightning.pytorch.callbacks import Callback

from latent_reason import checkpoint, methods
from latent_reason.model.reasoner import LatentReasoner
from latent_reason.objectives import feedback
from latent_reason.objectives.objective import Objective

from . import sharding
from .batch_sizes import launched, with_micro_batch
from .callbacks import SketchPanel
from .data import TraceData
from .held_out import HeldOutRecords
from .lit_modules import SFTModule
from .memory import check_memory
from .model_setup import build_objective, choose_attention, freeze_all_but, prepare_model
from .shared_examples import Peers
from .traces import make_task, mode_of
from .trainer import console, fit, make_saver, run_training, train_stages

MAX_RECORDS_SHOWN = 8


def train(config: SFTConfig, folder: Path):
    """Train a config into a folder, stage by stage; returns (reasoner, decoder). The checkpoint is ``folder/model``."""
    return train_stages(config, folder, train_stage)


def train_stage(config: SFTConfig, folder: Path):
    """Train one stage; returns (reasoner, decoder)."""
    config = with_micro_batch(config, launched(config))
    reasoner, decoder = prepare_model(config)
    objective = build_objective(config, reasoner, decoder)
    choose_attention(reasoner, config, objective)
    if config.teacher:
        load_teacher(objective, config)
    check_swapped_images(reasoner, objective, config)
    freeze_all_but(reasoner, config.trainable)
    check_memory(reasoner, config)
    sharding.check_supported(config, reasoner, objective)
    has_frozen_encoder = not {"vision_encoder", "connector"} & set(config.trainable)
    data = TraceData(
        config.data,
        reasoner,
        objective,
        mode_of(config.method.name),
        config.seed,
        has_frozen_encoder,
        peers=Peers.of_launch(folder),
    )
    data.setup()
    if objective.uses_target(reasoner) and not reasoner.target.standardizer.fitted:
        reasoner.target.fit_statistics(data.sketch_features(), config.method.center_targets)
    match_norms(reasoner, objective, data, config)

    module = SFTModule(reasoner, objective, config.optim, sharding.ShardingOptions.of(config, objective))
    panels = make_panels(config, reasoner, decoder, folder)
    fit(config, module, data, folder, make_saver(config, reasoner, decoder), panels)
    data.release()
    return reasoner.eval(), decoder


def match_norms(reasoner: LatentReasoner, objective: Objective, data: TraceData, config: SFTConfig) -> None:
    """Measure how large latents are, where the config scales them and the checkpoint has not measured it.

    Raises:
        ValueError: the checkpoint was trained with scaled latents, and the config has raw ones; or the states of weights
            that are to be sharded would have to be measured.
    """
    if config.method.feedback == "raw":
        if reasoner.feedback != "raw":
            raise ValueError(
                f"method.feedback=raw: '{config.init_from}' was trained with {reasoner.feedback!r}. Set that."
            )
        return
    if reasoner.feedback != "raw":
        return
    if not (
        reasoner.can_sketch and any(row.spans for row in data.rows["train"])
    ):  # such as the first stage of a recipe
        console.print("method.feedback: no example has latents, so none are scaled.", style="yellow")
        return
    if config.fsdp and feedback.measures_states(reasoner, objective):
        raise ValueError(
            "method.feedback=norm_matched: the size of states cannot be measured with fsdp. Start from a checkpoint of a "
            "short run without fsdp."
        )
    gain = feedback.match_norms(reasoner, objective, data.feedback_batches())
    console.print(f"Latents are multiplied by {gain:.4g} where they are inputs (method.feedback).")


def load_teacher(objective: Objective, config: SFTConfig) -> None:
    """Load the checkpoint that a method learns from."""
    teacher, _ = checkpoint.load(config.teacher)
    choose_attention(teacher, config, objective)
    objective.set_teacher(teacher)


def make_panels(config: SFTConfig, reasoner: LatentReasoner, decoder, folder: Path) -> list[Callback]:
    """What is decoded of held-out items at every validation. Of records, a few suffice to see sketches; an answer may be
    twice as long as the longest gold answer."""
    data = config.data
    if data.baseline:  # its answer takes several turns, of which decoding would write the first
        return []
    if not data.folder:
        return [SketchPanel(reasoner, decoder, make_task(data, "val"), max(4, data.val_items), folder)]
    records = HeldOutRecords(data.folder, min(MAX_RECORDS_SHOWN, data.val_items))
    if not records:
        return []
    longest = 2 * records.longest_answer(reasoner)
    return [SketchPanel(reasoner, decoder, records, len(records), folder, max_new=longest)]


def check_swapped_images(reasoner: LatentReasoner, objective: Objective, config: SFTConfig) -> None:
    """Raises ValueError where images are swapped and no target latents say how to continue."""
    has_targets = objective.uses_target(reasoner) and objective.latent_input == "teacher"
    if config.data.swap_image_prob and not has_targets:
        raise ValueError(
            f"data.swap_image_prob: {config.method.name!r} does not put target latents into the context. Remove the key."
        )


def main() -> None:
    if done := run_training(train, SFTConfig, __doc__):
        config, folder = done
        model, records = folder / "model", config.data.folder
        can_sketch = methods.load(config.method.name).MODE in ("mixed", "vision")
        following = (
            f"eval.baselines {model} --out {folder / 'eval.json'}"
            if config.data.baseline
            else f"eval.probe {model} --folder {records} --out {folder / 'probe.json'}"
            if records and can_sketch
            else f"eval.answers {model} {records} --out {folder / 'answers.json'}"
            if records
            else f"eval.run {model} --tasks {config.data.task} --out {folder / 'eval.json'}"
        )
        console.print(f"Checkpoint: {model}\nNext:\n  python -m {following}")


if __name__ == "__main__":
    main()
