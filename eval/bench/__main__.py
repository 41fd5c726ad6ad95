"""Speed as ratios within one run, each next to its aim. Weights are random.

    python -m eval.bench --out FILE.json                # all measures, on a CPU about half an hour
    python -m eval.bench --counters --out FILE.json     # what is counted alone: the same on every machine
    python -m eval.bench --only stock,continuous --out FILE.json
    python -m eval.bench --gpu --out FILE.json          # 0.5B and 3B on one GPU, at most eight minutes

What is counted (operations, reads by the host, passes, bytes of weights) is exact. What is timed takes turns: a ratio is
the median over turns, with the least and the greatest beside it.
"""

from __future__ import annotations

import argparse

from latent_reason.cli.arguments import add_output
from latent_reason.errors import at_least, cli_errors, did_you_mean

from .settings import Setting


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only",
        metavar="NAME,...",
        help="of stock, latent, batch, continuous, old_loop, steps, training, own_latents (default: all)",
    )
    parser.add_argument("--repeats", type=at_least(1), help=f"turns of what is timed (default: {Setting.repeats})")
    parser.add_argument("--counters", action="store_true", help="count, and time nothing")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, to see that everything runs")
    parser.add_argument("--gpu", action="store_true", help="decoding and training of 0.5B and 3B on a GPU")
    add_output(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.progress import Progress

from latent_reason.files import atomic_write_json
from latent_reason.outputs import check_output

from . import batching, gpu, steps, training
from .findings import Finding, table_of

console = Console(soft_wrap=True)
MEASURES: dict[str, Callable[[Setting], Iterator[Finding]]] = {
    "stock": batching.compare_with_transformers,
    "latent": steps.compare_latent_with_text,
    "batch": batching.compare_batches,
    "continuous": batching.compare_continuous_with_static,
    "old_loop": steps.compare_with_old_loop,
    "steps": steps.count_against_plain,
    "training": training.compare_training_with_stock,
    "own_latents": training.compare_own_latents_with_given,
}
QUICK = Setting(size="tiny", repeats=1, batches=(1, 2), steps=4, counted=2, rows=2, many=4, shortest=2, examples=4)


def describe_machine() -> dict[str, Any]:
    """The device, and what computes on it."""
    cpu = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def run_measures(names: list[str], setting: Setting) -> Iterator[tuple[str, list[Finding], None]]:
    """Each measure by name, and what it found."""
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("measures", total=len(names))
        for name in names:
            progress.update(task, description=name)
            found = []
            for one in MEASURES[name](setting):
                found.append(one)
                progress.update(task, description=f"{name}: {one.name}")
            progress.advance(task)
            yield name, found, None


def names_of(text: str | None) -> list[str]:
    """The measures that ``--only`` names.

    Raises:
        ValueError: there is none of this name.
    """
    names = list(MEASURES) if text is None else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in MEASURES:
            raise ValueError(f"--only: no measure {name!r}. {did_you_mean(name, MEASURES)}")
    return names


@cli_errors()
def main(argv: list[str] | None = None) -> None:
    given = parse_arguments(argv)
    check_output(given.out, given.overwrite)
    names, setting = names_of(given.only), QUICK if given.quick else Setting()
    setting = replace(setting, is_timed=not given.counters, repeats=given.repeats or setting.repeats)
    report: dict[str, Any] = {"schema": 1, "machine": describe_machine()}
    if given.gpu:
        is_tiny = given.quick or not torch.cuda.is_available()
        if not torch.cuda.is_available():
            console.print("This machine has no GPU: the tiny model shows that every part runs, and nothing of speed.")
        report |= {"gpu": True, "tiny": is_tiny}
        measured: Iterator[tuple[str, list[Finding], str | None]] = gpu.run_parts(is_tiny)
    else:
        report["setting"] = asdict(setting)
        measured = run_measures(names, setting)
    report |= {"measures": {}, "errors": {}}
    findings: dict[str, list[Finding]] = {}
    for name, found, error in measured:
        findings[name] = found
        report["measures"][name] = {one.name: one.to_json() for one in found}
        if error is not None:
            report["errors"][name] = error
            console.print(f"{name}: {error}", markup=False)
        atomic_write_json(given.out, report)  # a later part may be ended from outside
    console.print(table_of(findings))
    console.print("On {device} ({cpu}), {threads} thread(s), load {load}.".format(**report["machine"]))
    console.print(f"Written to {given.out}")


if __name__ == "__main__":
    main()
