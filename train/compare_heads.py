"""Which head learns to sketch? The same start, data and steps for every head; one JSON.

    python -m train.compare_heads --config train/recipes/heads.yaml --init checkpoints/NAME --out paper_figs/data/heads.json

Leaves out on purpose: tuning each head by itself. One seed a head unless --seeds says more; a lead, not a law.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import torch

from latent_reason.decoding.items import decode, summarise
from latent_reason.errors import cli_errors
from latent_reason.files import atomic_write_json
from latent_reason.model.batch import shift_right

from . import config as recipes
from .data import TraceData, make_task, mode_of
from .lit_modules import Sft
from .trainer import console, objective_of, set_trainable, start

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
CHAINS = (1, 2, 4, 8, 16)  # denoising steps at which a drawn latent is measured


def train_one(recipe, options: dict, rows: dict, items, task) -> dict:
    """Train one head and measure it: error of a latent drawn under teacher forcing, sketches and plans in decoding."""
    recipe.method.options = {"k": 16, **options}
    reasoner, decoder = start(recipe)
    set_trainable(reasoner, recipe.trainable)
    objective = objective_of(recipe, reasoner)
    data = TraceData(recipe.data, reasoner, objective, mode_of("modal_mixed"), recipe.seed, frozen_vision=True)
    data.rows = rows
    data.setup()
    reasoner.target.fit_statistics(data.sketch_features())
    module = Sft(reasoner, objective, recipe.optim).train()
    optimizers, schedules = module.configure_optimizers()
    step, loader = 0, data.train_dataloader()
    while step < recipe.optim.steps:
        for batch in loader:
            loss, _ = module.cost(batch)
            for o in optimizers:
                o.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for p in module.parameters() if p.requires_grad], recipe.optim.clip)
            for o, s in zip(optimizers, schedules, strict=True):
                o.step()
                s["scheduler"].step()
            step += 1
            if step == recipe.optim.steps:
                break
    head, errors = reasoner.eval().head, {}
    if head.is_stochastic:
        default = head.steps
        for head.steps in CHAINS:
            errors[str(head.steps)] = round(drawn_error(reasoner, data), 4)
        head.steps = default
    found = summarise(decode(reasoner, decoder, task, items, "mixed"))
    return {
        "steps": step,
        "drawn_error": round(drawn_error(reasoner, data), 4),
        "drawn_error_by_denoising_steps": errors,
        **{k: round(v, 4) for k, v in found.items()},
    }


@torch.no_grad()
def drawn_error(reasoner, data: TraceData) -> float:
    """Mean squared error of one drawn latent, standardised (1 is the slot mean), given gold latents before it."""
    total, count = 0.0, 0
    for batch in data.val_dataloader():
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
    parser = argparse.ArgumentParser(
        prog="python -m train.compare_heads", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True)
    parser.add_argument("--init", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--n", type=int, default=100, help="held-out items to decode")
    parser.add_argument("--only", help="variants whose name holds this")
    given = parser.parse_args(argv)
    rows: dict = {}
    found = []
    for seed in map(int, given.seeds.split(",")):
        for name, options in VARIANTS.items():
            if given.only and given.only not in name:
                continue
            recipe = recipes.load(given.config, init=given.init, seed=seed)
            task = make_task(recipe.data, "test")
            items = [task[i] for i in range(given.n)]
            result = {"head": name, "seed": seed, "n": given.n} | train_one(recipe, options, rows, items, task)
            console.print(result)
            found.append(result)
            atomic_write_json(
                given.out,
                {
                    "schema": 1,
                    "command": f"python -m train.compare_heads --config {given.config} --seeds {given.seeds}",
                    "start": "a run of train/recipes/tiny_pretrain.yaml",
                    "device": platform.processor() or "CPU",
                    "threads": torch.get_num_threads(),
                    "results": found,
                },
            )
    console.print(f"Written to {Path(given.out)}")


if __name__ == "__main__":
    main()
