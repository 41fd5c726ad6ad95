"""Is data ready before a training step needs it? Traces a second read, encoded and seen, against those a step eats.

    python -m train.bench_data FOLDER --out FILE.json [--n 256] [--size tiny]

FOLDER holds native records, in files or packed; a packed one is streamed too. The model is that of eval.bench, with
random weights; a step is forward and backward of one batch whose pictures were seen before. What a frozen eye makes of
pictures is measured without and with what a disk cache holds. Everything runs in one process, one stage after the
other, in turns: each rate is the median over turns, with the least and the greatest beside.
"""

from __future__ import annotations

import argparse

from eval.bench.settings import SIZES
from latent_reason.cli.arguments import add_output
from latent_reason.errors import at_least, cli_errors


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m train.bench_data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--n", type=at_least(2), default=256, help="traces, from the first on")
    parser.add_argument("--batch", type=at_least(1), default=32, help="traces a training step")
    parser.add_argument("--turns", type=at_least(1), default=3)
    add_output(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from eval.bench.models import build
from eval.bench.training import train_once
from latent_reason import methods
from latent_reason.data import native, packed
from latent_reason.data.streaming import Stream
from latent_reason.files import atomic_write_json
from latent_reason.objectives.packing import collate_examples
from latent_reason.outputs import check_output

from .feature_cache import DiskCache, with_features

console = Console(soft_wrap=True)


def stages(reasoner, folder: Path, n: int, batch: int, cache: Path) -> tuple[dict[str, Callable[[], object]], int]:
    """(stage -> what does it for all traces, how many traces there are)."""
    traces = list(islice(native.read(folder), n))
    if sum(len(trace.sketches()) for trace in traces) < 2:
        raise ValueError(
            f"the first {n} records of '{folder}' hold fewer than two sketches, which the model of this "
            "bench draws. Give some with sketches."
        )
    encode = partial(methods.objective_of(reasoner).encode, reasoner)
    rows = [encode(trace) for trace in traces]

    def seen(kept: DiskCache | None = None):
        return with_features(rows, reasoner, kept)

    def cached() -> DiskCache:
        return DiskCache(cache, 2**34, console.print)

    kept = cached()
    ready = seen(kept)
    kept.flush()
    batches = [
        collate_examples(reasoner.processor, ready[i : i + batch]).to(reasoner.device)
        for i in range(0, len(ready), batch)
    ]
    grids = [tuple(grid) for one in batches for grid in one.spans[:, 2:].tolist()]
    features = [z for one in batches for z, _ in reasoner.target.statistics_samples(one)]
    reasoner.target.fit_statistics(list(zip(features, grids, strict=True)))
    found = {"read": lambda: list(islice(native.read(folder), n))}
    if packed.of_split(folder, traces[0].split) and find_spec("datasets"):
        streamed = Stream(folder, traces[0].split)
        found["streamed"] = lambda: list(islice(copy.copy(streamed), len(traces)))
    found |= {
        "encoded": lambda: [encode(trace) for trace in traces],
        "seen by the eye": seen,
        "seen, from a disk cache": lambda: seen(cached()),
        "collated": lambda: [
            collate_examples(reasoner.processor, ready[i : i + batch]) for i in range(0, len(ready), batch)
        ],
        "eaten by training steps": lambda: [train_once(reasoner, one) for one in batches],
    }
    return found, len(traces)


def bench(reasoner, folder: Path, n: int, batch: int, turns: int) -> dict:
    with tempfile.TemporaryDirectory() as cache:
        found, count = stages(reasoner, folder, n, batch, Path(cache))
        seconds: dict[str, list[float]] = {name: [] for name in found}
        for turn in track(range(turns + 1), description="turns", console=console, transient=True):
            for name, run in found.items():  # the first turn is to warm up
                began = time.perf_counter()
                run()
                if turn:
                    seconds[name].append(time.perf_counter() - began)
    return {
        "traces": count,
        "rates": {
            name: {
                "median": round(count / statistics.median(took), 1),
                "least": round(count / max(took), 1),
                "greatest": round(count / min(took), 1),
            }
            for name, took in seconds.items()
        },
    }


def table(found: dict) -> Table:
    shown = Table("stage", "traces a second", "from", "to", "times a step's")
    eaten = found["rates"]["eaten by training steps"]["median"]
    for name, rate in found["rates"].items():
        shown.add_row(
            name,
            f"{rate['median']:,.0f}",
            f"{rate['least']:,.0f}",
            f"{rate['greatest']:,.0f}",
            f"{rate['median'] / eaten:,.1f}",
        )
    for column in shown.columns[1:]:
        column.justify = "right"
    return shown


@cli_errors()
def main(argv: list[str] | None = None) -> None:
    given = parse_arguments(argv)
    check_output(given.out, given.overwrite)
    reasoner, _ = build(given.size, "auto")
    found = bench(reasoner, Path(given.folder), given.n, given.batch, given.turns)
    found = {
        "schema": 1,
        "size": given.size,
        "batch": given.batch,
        "turns": given.turns,
        "folder": given.folder,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        **found,
    }
    atomic_write_json(given.out, found)
    console.print(table(found))
    console.print(
        f"{found['traces']} traces of {given.folder}, batches of {given.batch}, {given.size} model on "
        f"{found['device']}, {found['threads']} thread(s), median of {given.turns} turns. Load of the "
        f"machine: {found['load']} on {found['cores']} cores; where it is above the threads used here, "
        f"something else ran beside, and the rates say little. Written to {given.out}"
    )


if __name__ == "__main__":
    main()
