"""Reinforcement learning: rollouts, rule-based rewards, and policy updates.

    python -m train.rl --config train/recipes/rl_frozenlake.yaml --init_from CHECKPOINT --run_name my-run

Text tokens and the decision to sketch are actions. ``rl.latent_policy`` sets whether latents are actions too
(latent_reason/objectives/latent_policies). ``rl.loss_type`` names a row of the table in
latent_reason/objectives/policy_gradient.py. Reward models are not supported.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback

from .. import sharding
from ..batch_sizes import check_batch_sizes, launched
from ..callbacks import Alarms, Dependence, RolloutPanel, SketchPanel
from ..config import RLTrainingConfig, complete, stages_of
from ..memory import check_memory
from ..model_setup import build_objective, choose_attention, freeze_all_but, prepare_model
from ..traces import make_task
from ..trainer import console, fit, make_saver, run_training, train_stages
from . import rewards
from .module import RLModule
from .records import load_held_out, load_records
from .reward_inputs import NEED_REFERENCE
from .samplers import PromptData


def train(config: RLTrainingConfig, folder: Path):
    """Train a config into a folder, stage by stage; returns (reasoner, decoder). The checkpoint is ``folder/model``."""
    for stage in stages_of(config):
        check_supported(stage)
    config = complete(config)  # all stages have the options of the checkpoint that the first starts from
    ref_model = config.rl.ref_model or config.init_from  # the same in all stages
    return train_stages(replace(config, rl=replace(config.rl, ref_model=ref_model)), folder, train_stage)


def check_supported(config: RLTrainingConfig) -> None:
    """Raises ValueError for keys that reinforcement learning does not support together."""
    if not config.init_from:
        raise ValueError(
            "init_from: reinforcement learning starts from a model that solves some items. Set --init_from "
            "checkpoints/NAME/model."
        )
    check_batch_sizes(config, launched(config))
    if config.lora.dropout:
        raise ValueError("lora.dropout: rollouts and their replay must use the same weights. Set it to 0.")
    if config.precision == "bf16-true":
        raise ValueError(
            f"precision={config.precision!r}: weights in 16 bits are too coarse for the small updates of reinforcement "
            "learning. Set bf16-mixed."
        )


def train_stage(config: RLTrainingConfig, folder: Path):
    """Train one stage; returns (reasoner, decoder)."""
    reasoner, decoder = prepare_model(config, require_trained=True)
    choose_attention(reasoner, config, build_objective(config, reasoner))
    for module in reasoner.modules():  # rollouts and their replay must use the same weights
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    inputs = {name for reward in config.rl.rewards for name in getattr(rewards.find(reward), "wants", ())}
    reference = None
    if config.rl.beta or config.rl.latent_beta or config.rl.latent_anchor or inputs & set(NEED_REFERENCE):
        unsharded = replace(config, init_from=config.rl.ref_model, fsdp=False)
        reference, _ = prepare_model(unsharded, require_trained=True)
        choose_attention(reference, config, build_objective(config, reference))
        reference.requires_grad_(False).eval()
    if decoder is not None:
        decoder.requires_grad_(False)
    if config.rl.latents_per_span and reasoner.can_sketch and reasoner.switch.stop != "count":
        raise ValueError(
            f"rl.latents_per_span: method {config.method.name!r} predicts the number of latents of a sketch. Remove "
            "rl.latents_per_span."
        )
    freeze_all_but(reasoner, config.trainable)
    check_memory(reasoner, config)
    task = load_records(config) if config.data.folder else make_task(config.data, "train")
    module = RLModule(reasoner, task, config, reference, decoder, launched(config))
    check_fsdp(config, module)
    may_drift = (
        reasoner.can_sketch and "head" in config.trainable and len(config.trainable) > 1 and not config.rl.sft_coef
    )
    if may_drift:
        console.print(
            "Warning: the head and the backbone train together, and no supervised loss keeps the latents near their "
            "targets. Consider rl.sft_coef 0.05.",
            style="yellow",
        )
    save = make_saver(config, reasoner, decoder)
    panels = make_panels(config, reasoner, decoder, folder)
    prompts = PromptData(task, config, module.sampler.pass_rates, is_validated=bool(panels))
    callbacks = [*panels, RolloutPanel(decoder), Alarms()]
    fit(config, module, prompts, folder, save, callbacks, config.rl.num_iterations)
    return reasoner.eval(), decoder


def make_panels(config: RLTrainingConfig, reasoner, decoder, folder: Path) -> list[Callback]:
    """What is measured on held-out items at every validation. Records have no rules for sketches, only for answers."""
    data, options = config.data, {"max_new": config.rl.max_completion_length}
    if data.folder:
        held_out = load_held_out(config)
        return [SketchPanel(reasoner, decoder, held_out, len(held_out), folder, **options)] if held_out else []
    panels = [SketchPanel(reasoner, decoder, make_task(data, "val"), max(4, data.val_items), folder, **options)]
    if reasoner.can_sketch and data.val_items:
        panels.append(Dependence(reasoner, data, **options))
    return panels


def check_fsdp(config: RLTrainingConfig, module: RLModule) -> None:
    """Raises ValueError for options that FSDP2 does not support."""
    sharding.check_supported(config, module.reasoner, module.sft)
    options = config.rl.latent_policy_options
    is_uneven = options.get("path") == "full" or options.get("credit") == "span"
    if config.fsdp and (config.rl.latent_weight == "balanced" or is_uneven):
        raise ValueError(
            "fsdp: rl.latent_weight=balanced, and path=full and credit=span of rl.latent_policy_options, make passes that "
            "differ between processes. Set a number, path=one and credit=rollout."
        )
    if config.fsdp and config.rl.perturbations:
        raise ValueError(
            "fsdp: rl.perturbations scores perturbed rollouts, whose lengths differ between processes. Remove one of the "
            "two keys."
        )


def main() -> None:
    if finished := run_training(train, RLTrainingConfig, __doc__):
        config, folder = finished
        model = folder / "model"
        console.print(f"Checkpoint: {model}")
        if not config.data.folder:
            console.print(
                f"Next:\n  python -m eval.run {model} --tasks {config.data.task} --out {folder / 'eval.json'}"
            )
