"""Compare latent heads: the same start, data and steps for every head; one JSON.

    python -m train.compare_heads --config train/recipes/heads.yaml --init_from checkpoints/NAME --seeds [0] --out FILE.json

A head that FILE.json holds already is not trained again. Not here: tuning each head by itself.
"""

from __future__ import annotations

import platform
import shlex
import sys
from contextlib import closing

import torch

from latent_reason.decoding.items import decode, summarise
from latent_reason.errors import cli_errors
from latent_reason.model.batch import shift_right

from .config import HeadComparisonConfig, SFTConfig, SFTMethodConfig, parse_command_line
from .data import TraceData
from .lit_modules import SFTModule, set_trainable
from .model_setup import build_objective, choose_attention, prepare_model
from .progress import console
from .results_file import Results
from .traces import make_task, mode_of

LARGE = {"residual": False, "hidden": 256, "depth": 3}
VARIANTS = {
    "mlp (regression)": {"head": "mlp"},
    "flow (width 2Z)": {"head": "flow", "head_options": LARGE},
    "diffusion eps": {"head": "diffusion", "head_options": LARGE | {"prediction": "eps"}},
    "diffusion x": {"head": "diffusion", "head_options": LARGE | {"prediction": "x"}},
    "diffusion v": {"head": "diffusion", "head_options": LARGE | {"prediction": "v"}},
    "flow, 4 noises a latent": {"head": "flow", "head_options": LARGE | {"repeats": 4}},
    "flow, width Z/2": {"head": "flow", "head_options": LARGE | {"hidden": 64}},
    "flow, width Z": {"head": "flow", "head_options": LARGE | {"hidden": 128}},
    "flow, width 4Z": {"head": "flow", "head_options": LARGE | {"hidden": 512}},
    "flow, residual": {"head": "flow", "head_options": LARGE | {"residual": True}},
    "flow, residual, width Z, depth 2": {"head": "flow"},  # the default
    "diffusion v, residual": {"head": "diffusion", "head_options": LARGE | {"residual": True}},
}
NUM_STEPS = (1, 2, 4, 8, 16)  # denoising steps at which a sampled latent is measured


def variant_config(config: HeadComparisonConfig, options: dict, seed: int) -> SFTConfig:
    """The training config of one head."""
    shared = {name: getattr(config, name) for name in ("init_from", "accelerator", "trainable", "backbone", "data")}
    method = SFTMethodConfig(config.method.name, {"k": 16, **options})
    return SFTConfig(**shared, seed=seed, method=method, optim=config.optim, lora=config.lora)


def train_head(config: SFTConfig, rows: dict):
    """(reasoner, decoder, data) after training; ``rows`` keeps the encoded data from one head to the next."""
    reasoner, decoder = prepare_model(config)
    objective = build_objective(config, reasoner, decoder)
    choose_attention(reasoner, config, objective)
    set_trainable(reasoner, config.trainable)
    mode = mode_of(config.method.name)
    data = TraceData(config.data, reasoner, objective, mode, config.seed, frozen_vision=True, rows=rows)
    data.setup()
    reasoner.target.fit_statistics(data.sketch_features())
    module = SFTModule(reasoner, objective, config.optim).train()
    (optimizer,), (schedule,) = module.configure_optimizers()
    parameters = [p for p in module.parameters() if p.requires_grad]
    for _, batch in zip(range(config.optim.max_steps), data.batches(), strict=False):
        loss, _ = module.compute_loss(batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.optim.max_grad_norm)
        optimizer.step()
        schedule["scheduler"].step()
    return reasoner.eval(), decoder, data


def measure_head(config: SFTConfig, rows: dict, items, task) -> dict:
    """Train one head; measure the error of sampled latents under teacher forcing, and sketches and plans in decoding."""
    reasoner, decoder, data = train_head(config, rows)
    head, errors = reasoner.head, {}
    if head.is_stochastic:
        default = head.steps
        for head.steps in NUM_STEPS:
            errors[str(head.steps)] = round(sampling_error(reasoner, data), 4)
        head.steps = default
    scores = summarise(decode(reasoner, decoder, task, items, "mixed"))
    return {
        "steps": config.optim.max_steps,
        "drawn_error": round(sampling_error(reasoner, data), 4),
        "drawn_error_by_denoising_steps": errors,
        **{k: round(v, 4) for k, v in scores.items()},
    }


@torch.no_grad()
def sampling_error(reasoner, data: TraceData) -> float:
    """Mean squared error of a sampled latent, standardized (1 is the slot mean), given gold latents before it."""
    total, count = 0.0, 0
    for batch in (step_batch.batch for step_batch in data.held_out_batches()):
        if not len(batch.spans):
            continue
        z = reasoner.target(batch)
        embeds, positions = (
            reasoner.embed_batch(batch, reasoner.latents_to_embeddings(z)),
            reasoner.backbone.position_ids(batch),
        )
        h = shift_right(reasoner.backbone.forward_text(embeds, batch.mask, positions))
        rows, position, mask = batch.latent_slots()
        gold = reasoner.target.normalize(z, batch.spans[:, 2:])[mask]
        noise = torch.randn(gold.shape, generator=torch.Generator().manual_seed(0))
        drawn = reasoner.head.sample(h[rows, position][mask], noise=noise)
        total += float((drawn - gold).square().mean(-1).sum())
        count += len(gold)
    return total / max(count, 1)


@cli_errors()
def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    config = parse_command_line(HeadComparisonConfig, __doc__, argv)
    if not config.out:
        raise ValueError("a comparison needs --out; see python -m train.compare_heads --help.")
    about = {
        "schema": 1,
        "command": f"python -m train.compare_heads {shlex.join(argv)}",
        "start": "a run of train/recipes/tiny_pretrain.yaml",
        "test_items": config.test_items,
        "device": platform.processor() or "CPU",
        "threads": torch.get_num_threads(),
    }
    variants = {
        (name, seed): variant_config(config, options, seed)
        for seed in config.seeds
        for name, options in VARIANTS.items()
    }
    results = Results(config.out, about, variants, config.only, "head")
    task = make_task(config.data, "test")
    items = [task[i] for i in range(config.test_items)]
    rows: dict = {}
    with closing(results):
        for (name, seed), variant in variants.items():
            if results.is_wanted(name, seed):
                results.add(name, seed, variant, {"n": config.test_items} | measure_head(variant, rows, items, task))
    console.print(f"Written to {config.out}")


if __name__ == "__main__":
    main()
