"""Compare latent heads: the same start, data and steps for every head; one JSON.

    python -m train.compare_heads --config train/recipes/heads.yaml --init_from checkpoints/NAME --seeds [0] --out FILE.json

A head that FILE.json holds already is not trained again. Not here: tuning each head by itself.
"""

from __future__ import annotations

from .config import HeadComparisonConfig, answer_help

if __name__ == "__main__":
    answer_help(HeadComparisonConfig, __doc__)  # before torch is imported

import platform
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import closing

import torch

from latent_reason.decoding.items import decode, summarise
from latent_reason.errors import cli_errors
from latent_reason.model.batch import shift_right

from .config import SFTConfig, SFTMethodConfig, parse_command_line
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
    "flow, late times": {"head": "flow", "head_options": LARGE | {"times": "late"}},
    "flow, logit-normal times": {"head": "flow", "head_options": LARGE | {"times": "logit_normal"}},
    **{
        f"diffusion {prediction}, late times": {
            "head": "diffusion",
            "head_options": LARGE | {"prediction": prediction, "times": "late"},
        }
        for prediction in ("eps", "x", "v")
    },
    "flow, 4 noises a latent": {"head": "flow", "head_options": LARGE | {"repeats": 4}},
    "flow, width Z/2": {"head": "flow", "head_options": LARGE | {"hidden": 64}},
    "flow, width Z": {"head": "flow", "head_options": LARGE | {"hidden": 128}},
    "flow, width 4Z": {"head": "flow", "head_options": LARGE | {"hidden": 512}},
    "flow, residual": {"head": "flow", "head_options": LARGE | {"residual": True}},
    "flow, residual, width Z, depth 2": {"head": "flow"},  # the default
    "flow, residual, one step": {"head": "flow", "head_options": {"steps": 1}},
    "mean flow, one step": {"head": "mean_flow"},
    "whole span": {"head": "whole_span", "head_options": {"longest": 16}},
    "whole span, from one state alone": {
        "head": "whole_span",
        "head_options": {"longest": 16, "cross_attention_layers": 0},
    },
    "diffusion v, residual": {"head": "diffusion", "head_options": LARGE | {"residual": True}},
}
NUM_STEPS = (1, 2, 4, 8, 16)  # denoising steps at which a sampled latent is measured
MEAN_OF = 8  # draws of a latent, whose mean is measured beside one draw: a perfect sampler pays its spread twice
REPEATS = 30  # of the time of a span


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
        for steps in NUM_STEPS:
            head.set_steps(steps)
            errors[str(steps)] = round(sampling_error(reasoner, data), 4)
        head.set_steps(default)
    results = decode(reasoner, decoder, task, items, "mixed")
    return {
        "steps": config.optim.max_steps,
        "drawn_error": round(sampling_error(reasoner, data), 4),
        "drawn_error_of_mean": round(sampling_error(reasoner, data, MEAN_OF), 4),
        "drawn_error_by_denoising_steps": errors,
        **{k: round(v, 4) for k, v in summarise(results).items()},
        "rendered_sketches": sum(len(r.sketches) for r in results),
        **span_costs(reasoner, task.trace(items[0], "mixed")),
    }


@torch.no_grad()
def sampling_error(reasoner, data: TraceData, draws: int = 1) -> float:
    """Mean squared error of a sampled latent, or of the mean of several draws, standardized (1 is the slot mean), given
    gold latents before it."""
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
        noise = torch.randn(draws, *gold.shape, generator=torch.Generator().manual_seed(0))
        states = h[rows, position]
        if reasoner.head.draws_whole_span:
            context = reasoner.head_context(batch).for_rows(batch.spans[:, 0])
            drawn = reasoner.head.draw_span(states[:, 0], mask.shape[1], context)[mask]
        else:
            drawn = torch.stack([reasoner.head.sample(states[mask], noise=one) for one in noise]).mean(0)
        total += float((drawn - gold).square().mean(-1).sum())
        count += len(gold)
    return total / max(count, 1)


@torch.no_grad()
def span_costs(reasoner, trace, length: int = 16) -> dict:
    """What a span of one row costs after the prompt of a trace: passes of the text model, calls of the head's network
    and the milliseconds of both together, without what decoding does besides. They are of processor time, the least of
    some repeats, so that other programs hardly count."""
    head, prompt = reasoner.head, reasoner.processor([trace], generate=True)
    span = Span(reasoner, prompt, length)
    draw = span.draw_whole if head.draws_whole_span else span.draw_in_turn
    passes = 1 if head.draws_whole_span else length
    return {
        "span_length": length,
        "backbone_passes": passes,
        "network_calls": passes * getattr(head, "steps", 1),
        "span_cpu_ms": round(1e3 * min(processor_seconds(draw) for _ in range(REPEATS)), 2),
    }


def processor_seconds(run: Callable[[], None]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


class Span:
    """A square span of ``length`` latents after a prompt of one row, drawn and read by the text model."""

    def __init__(self, reasoner, prompt, length: int):
        self.reasoner, self.length, backbone = reasoner, length, reasoner.backbone
        self.positions, self.cache = backbone.position_ids(prompt), backbone.new_cache()
        self.grids = torch.full((length, 2), int(length**0.5))
        self.slots = torch.arange(length)
        self.noise = torch.randn(length, reasoner.head.latent_width)
        context = reasoner.head_context(prompt)
        self.context = context and context.for_rows(torch.zeros(1, dtype=torch.long))
        embeds = reasoner.prompt_embeddings(prompt)
        self.first = backbone.forward_text(embeds, prompt.mask, self.positions, self.cache)[:, -1]

    def read(self, latents: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """(1, D) the state after latents (n, D) at slots (n,)."""
        backbone, start = self.reasoner.backbone, self.positions.max() + 1
        places = backbone.latent_position_ids(start.expand(len(slots)), slots, self.grids[slots])[:, None]
        seen = torch.ones(1, self.cache.get_seq_length() + len(slots), dtype=torch.bool)
        return backbone.forward_text(latents[None], seen, places, self.cache)[:, -1]

    def draw_in_turn(self) -> None:
        reasoner, h = self.reasoner, self.first
        constants = reasoner.head.sampling_constants()
        for slot in self.slots.split(1):
            latent = reasoner.sample_latents(h, self.grids[slot], slot, self.noise[slot], constants=constants)
            h = self.read(latent, slot)
        self.cache.crop(-self.length)

    def draw_whole(self) -> None:
        reasoner = self.reasoner
        latents = reasoner.head.draw_span(self.first, self.length, self.context)[0]
        self.read(reasoner.to_embeddings(latents, self.grids, self.slots), self.slots)
        self.cache.crop(-self.length)


@cli_errors()
def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    config = parse_command_line(HeadComparisonConfig, __doc__, argv)
    if not config.out:
        raise ValueError("a comparison needs --out; see python -m train.compare_heads --help.")
    about = {
        "schema": 1,
        "command": f"python -m train.compare_heads {shlex.join(argv)}",
        "start": config.init_from,
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
