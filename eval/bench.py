"""Decoding speed: rows per second by batch size, and the time of a latent step relative to a text step.

    python -m eval.bench CHECKPOINT --out FILE.json

``batch_speedup``: rows per second at batch size 16 relative to batch size 1.
``latent_over_text``: time of a latent step relative to a text step, at batch size 1 and with a cache of usual length
(medians).
``unrolled_over_given_training``: time of a training step on the model's own latents (one cached pass per column of
latents) relative to a step on target latents.
All numbers of a ratio come from the same run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial

import torch
from rich.console import Console

from latent_reason import checkpoint, methods, tasks
from latent_reason.cli.arguments import add_output
from latent_reason.decoding.engine import generate
from latent_reason.errors import at_least, cli_errors
from latent_reason.files import atomic_write_json
from latent_reason.objectives import latent_inputs
from latent_reason.objectives.objective import Objective
from latent_reason.outputs import check_output

console = Console()


def _clock(device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measure_seconds(run, device, repeats: int) -> list[float]:
    """Seconds of each repeat, after one warm-up run."""
    run()
    out = []
    for _ in range(repeats):
        start = _clock(device)
        run()
        out.append(_clock(device) - start)
    return out


def rows_per_second(reasoner, prompts: list, batch: int, new_positions: int, repeats: int) -> float:
    """Decoded rows per second at a batch size. Every row has ``new_positions`` new positions and opens a sketch."""
    processor = reasoner.processor
    prompt = processor([prompts[i % len(prompts)] for i in range(batch)], generate=True).to(reasoner.device)

    def run():
        generate(reasoner, prompt, max_new_tokens=new_positions, latent_mode="first" if reasoner.can_sketch else "off")

    return batch / statistics.median(measure_seconds(run, reasoner.device, repeats))


def step_seconds(reasoner, prompt, kind: str, steps: int, repeats: int) -> float:
    """Median seconds of one ``text`` or ``latent`` step at batch size 1: (long - short) / steps, so that the prompt
    cancels. For text steps the end token is disabled, so that the model does not stop."""

    def run(n):
        if kind == "text":
            return lambda: generate(reasoner, prompt, max_new_tokens=n, latent_mode="off")
        return lambda: generate(reasoner, prompt, max_new_tokens=n + 1, latent_mode="first", latents_per_span=n)

    end, reasoner.vocabulary.end = reasoner.vocabulary.end, -1
    try:
        short, long = (statistics.median(measure_seconds(run(n), reasoner.device, repeats)) for n in (4, 4 + steps))
    finally:
        reasoner.vocabulary.end = end
    return (long - short) / steps


def training_ratio(reasoner, traces: list, repeats: int) -> float:
    """Seconds of a training step on the model's own latents, unrolled with the cache, relative to target latents."""
    batch = methods.objective_of(reasoner).collate(reasoner, traces).to(reasoner.device)

    def step(objective: Objective):
        reasoner.zero_grad()
        reasoner(objective.loss, batch).total.backward()

    seconds = {}
    for latent_input in ("teacher", "self"):
        run = partial(step, Objective(latent_input=latent_input))
        seconds[latent_input] = statistics.median(measure_seconds(run, reasoner.device, repeats))
    return seconds["self"] / seconds["teacher"]


def jacobi_speed(reasoner, traces: list, repeats: int, tolerance: float = 1e-3) -> dict:
    """The number of parallel sweeps until latents equal the sequential ones (mean squared error below ``tolerance`` of
    their mean square; at most one sweep per latent), and the time of these sweeps relative to sequential unrolling."""
    batch = methods.objective_of(reasoner).collate(reasoner, traces).to(reasoner.device)
    positions, mask = reasoner.backbone.position_ids(batch), batch.latent_slots()[2]
    with torch.no_grad():
        _, exact = latent_inputs.unroll_latents(reasoner, batch, positions)
        for sweeps in range(1, int(batch.span_lengths.sum()) + 1):
            _, latents = latent_inputs.sweep_latents(reasoner, batch, positions, sweeps)
            if (latents - exact)[mask].square().mean() < tolerance * exact[mask].square().mean():
                break
        passes = (
            lambda: latent_inputs.unroll_latents(reasoner, batch, positions),
            lambda: latent_inputs.sweep_latents(reasoner, batch, positions, sweeps),
        )
        seconds = [statistics.median(measure_seconds(one_pass, reasoner.device, repeats)) for one_pass in passes]
    return {
        "sweeps": sweeps,
        "latents_in_turn": len(batch.latent_places()[2].unique()),
        "sweeps_over_in_turn": round(seconds[1] / seconds[0], 2),
    }


def bench(reasoner, prompts: list, new_positions: int = 40, repeats: int = 5) -> dict:
    prompt = reasoner.processor(prompts[:1], generate=True).to(reasoner.device)
    rates = {b: rows_per_second(reasoner, prompts, b, new_positions, repeats) for b in (1, 4, 16)}
    report = {
        "rows_per_second": {str(b): round(r, 3) for b, r in rates.items()},
        "batch_speedup": round(rates[16] / rates[1], 2),
    }
    if reasoner.can_sketch:
        text, latent = (step_seconds(reasoner, prompt, kind, 24, repeats) for kind in ("text", "latent"))
        report |= {
            "text_step_ms": round(1e3 * text, 3),
            "latent_step_ms": round(1e3 * latent, 3),
            "latent_over_text": round(latent / text, 3),
            "head": type(reasoner.head).__name__,
            "denoising_steps": getattr(reasoner.head, "steps", 0),
            "unrolled_over_given_training": round(training_ratio(reasoner, prompts[:8], repeats), 2),
        }
        if not reasoner.head.is_stochastic:
            report |= jacobi_speed(reasoner, prompts[:8], repeats)
    return report


@cli_errors()
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--level", type=at_least(1), default=4)
    parser.add_argument("--new", type=at_least(1), default=40, help="new positions per row")
    parser.add_argument("--repeats", type=at_least(1), default=5)
    add_output(parser)
    args = parser.parse_args(argv)
    check_output(args.out, args.overwrite)
    reasoner, _ = checkpoint.load(args.checkpoint)
    task = tasks.make("frozenlake_plan", split="test", seed=1, level=args.level)
    report = bench(reasoner, [task.trace(task[i]) for i in range(16)], args.new, args.repeats)
    device = torch.cuda.get_device_name() if reasoner.device.type == "cuda" else "CPU"
    atomic_write_json(
        args.out,
        {
            "schema": 1,
            "checkpoint": args.checkpoint,
            "device": device,
            "threads": torch.get_num_threads(),
            "level": args.level,
            **report,
        },
    )
    console.print(report)
    console.print(f"Results written to {args.out}")


if __name__ == "__main__":
    main()
