"""Selects the training items that need their sketch: the model fails without it and succeeds with the true one.

    python -m eval.item_filter CHECKPOINT --out keep.json [--task frozenlake_plan] [--levels 3,4] [--n 2000]
    python -m train.sft --config RECIPE --data.include_ids keep.json

Training on the selection leaves out items whose answer cannot depend on a sketch. (arXiv 2605.18445 keeps a data set
only if its sketches help.)
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from latent_reason import checkpoint, methods, tasks
from latent_reason.cli.arguments import add_output
from latent_reason.decoding.items import decode, main_score
from latent_reason.errors import at_least, cli_errors, numbers
from latent_reason.files import atomic_write_json
from latent_reason.outputs import check_output
from latent_reason.values import Seed, argument

from .interventions import Oracle

console = Console(soft_wrap=True)


def find_items_that_need_sketch(reasoner, task, n: int, mode: str) -> tuple[list[int], dict[str, int]]:
    """(indices of the items to keep, number of items by outcome) among the first n items of a task."""
    keep, counts = [], {"without and with": 0, "with alone": 0, "without alone": 0, "neither": 0, "no sketch": 0}
    indices = [i for i in range(n) if any(s.sketch is not None for s in task[i].steps)]
    counts["no sketch"] = n - len(indices)
    items = [task[i] for i in indices]
    without_sketch = decode(reasoner, None, task, items, mode, latent_mode="off", progress="without sketches")
    with_sketch = decode(
        reasoner,
        None,
        task,
        items,
        mode,
        progress="with true sketches",
        latent_hook=lambda chunk: Oracle(reasoner, task, chunk),
    )
    for index, off, on in zip(indices, without_sketch, with_sketch, strict=True):
        key = main_score([off])
        solved = off.scores[key] == 1, on.scores[key] == 1
        counts[{(1, 1): "without and with", (0, 1): "with alone", (1, 0): "without alone"}.get(solved, "neither")] += 1
        if solved == (False, True):
            keep.append(index)
    return keep, counts


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.item_filter", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    add_output(parser)
    parser.add_argument("--task", help="default: the training task of the checkpoint")
    parser.add_argument("--levels", type=numbers, help="such as 3,4; default: the training levels of the checkpoint")
    parser.add_argument("--n", type=at_least(1), default=2000)
    parser.add_argument("--seed", type=argument(Seed), default=0, help="seed of the items, as data.seed in a recipe")
    with cli_errors():
        filter_to_file(parser.parse_args(argv))


def filter_to_file(args: argparse.Namespace) -> None:
    check_output(args.out, args.overwrite)
    reasoner, _ = checkpoint.load(args.checkpoint)
    if not reasoner.is_renderable:
        raise ValueError(
            f"'{args.checkpoint}' uses the method {reasoner.method.name!r}, which cannot encode a true sketch. Use a "
            "checkpoint of a method whose latents encode images."
        )
    data = reasoner.method.notes.get("data", {})
    name = args.task or tasks.check_trusted(data.get("task", "frozenlake_plan"), args.checkpoint)
    options = data.get("options", {})
    levels = tuple(args.levels or data.get("levels", (3, 4)))
    task = tasks.make(name, split="train", seed=args.seed, level=levels, **tasks.own(name, options))
    keep, counts = find_items_that_need_sketch(reasoner, task, args.n, methods.load(reasoner.method.name).MODE)
    atomic_write_json(
        args.out,
        {
            "schema": 1,
            "checkpoint": Path(args.checkpoint).as_posix(),
            "task": name,
            "version": task.version,
            "options": tasks.own(name, options),
            "levels": list(levels),
            "seed": args.seed,
            "n": args.n,
            "solved": counts,
            "keep": keep,
        },
    )
    console.print(f"Of {args.n} items: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    console.print(
        f"{len(keep)} items need their sketch. Results written to {args.out}. To train on them: --data.include_ids {args.out}"
    )


if __name__ == "__main__":
    main()
