"""Which training items need their sketch? Those a model fails without it and solves with the true one in its place.

    python -m eval.item_filter CHECKPOINT --out keep.json [--task frozenlake_plan] [--levels 3,4] [--n 2000]
    python -m train.sft --config RECIPE --data.keep keep.json

Training on these alone leaves out the items on which a sketch could not have mattered (2605.18445 keeps a data set only
if its sketches help).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from latent_reason import checkpoint, methods, tasks
from latent_reason.decoding.items import decode, main_score
from latent_reason.errors import at_least, cli_errors, numbers
from latent_reason.files import atomic_write_json

from .interventions import Oracle

console = Console(soft_wrap=True)


def needed(reasoner, task, n: int, mode: str) -> tuple[list[int], dict[str, int]]:
    """(indices of the items to keep, how many of n were solved how), among the first n items of a task."""
    kept, counts = [], {"without and with": 0, "with alone": 0, "without alone": 0, "neither": 0, "no sketch": 0}
    indices = [i for i in range(n) if any(s.sketch is not None for s in task[i].steps)]
    counts["no sketch"] = n - len(indices)
    items = [task[i] for i in indices]
    off = decode(reasoner, None, task, items, mode, latent_mode="off", progress="without sketches")
    true = decode(
        reasoner,
        None,
        task,
        items,
        mode,
        progress="with true sketches",
        latent_hook=lambda chunk: Oracle(reasoner, task, chunk),
    )
    for index, without, given in zip(indices, off, true, strict=True):
        key = main_score([without])
        solved = without.scores[key] == 1, given.scores[key] == 1
        counts[{(1, 1): "without and with", (0, 1): "with alone", (1, 0): "without alone"}.get(solved, "neither")] += 1
        if solved == (False, True):
            kept.append(index)
    return kept, counts


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.item_filter", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--out", required=True)
    parser.add_argument("--task", help="default: the task it was trained on")
    parser.add_argument("--levels", type=numbers, help="such as 3,4; default: the levels it was trained on")
    parser.add_argument("--n", type=at_least(1), default=2000)
    parser.add_argument("--seed", type=int, default=0, help="of the items, as data.seed of a recipe")
    with cli_errors():
        to_file(parser.parse_args(argv))


def to_file(given: argparse.Namespace) -> None:
    reasoner, _ = checkpoint.load(given.checkpoint)
    if not reasoner.is_renderable:
        raise ValueError(
            f"'{given.checkpoint}' was trained with {reasoner.method.name!r}, to which no true "
            "sketch can be given. Use one of a method whose latents are those of a picture."
        )
    data = reasoner.method.notes.get("data", {})
    name = given.task or tasks.check_trusted(data.get("task", "frozenlake_plan"), given.checkpoint)
    options = data.get("options", {})
    levels = tuple(given.levels or data.get("levels", (3, 4)))
    task = tasks.make(name, split="train", seed=given.seed, level=levels, **tasks.own(name, options))
    kept, counts = needed(reasoner, task, given.n, methods.load(reasoner.method.name).MODE)
    atomic_write_json(
        given.out,
        {
            "schema": 1,
            "checkpoint": Path(given.checkpoint).as_posix(),
            "task": name,
            "version": task.version,
            "options": tasks.own(name, options),
            "levels": list(levels),
            "seed": given.seed,
            "n": given.n,
            "solved": counts,
            "keep": kept,
        },
    )
    console.print(f"Of {given.n} items: " + ", ".join(f"{v} {k}" for k, v in counts.items()))
    console.print(f"{len(kept)} need their sketch. Written to {given.out}; train on them with --data.keep {given.out}")


if __name__ == "__main__":
    main()
