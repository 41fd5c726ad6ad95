"""Compares test-time methods of one checkpoint on the same held-out items: accuracy against cost.

    python -m eval.decodings CHECKPOINT --decodings "plain lead:window=8 best_of_n:n=4" --out FILE.json
        [--task frozenlake_plan] [--levels 3,4,5,6] [--n 200] [--seeds 1,2]

Every method answers the same items: ``--n`` for each seed, which draws the items and the samples. Costs are means per
item: text tokens and latents that were generated, those thrown away included, and passes of the text model one after
the other. Differences to plain greedy decoding are paired by item, with 95 % bootstrap intervals. The same command
resumes an interrupted run from FILE.unfinished.
"""

from __future__ import annotations

import argparse

from latent_reason.cli.arguments import add_output
from latent_reason.errors import at_least, cli_errors, numbers


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.decodings", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--decodings", required=True, type=str.split, help="methods with options, separated by spaces")
    parser.add_argument("--task", help="default: the task the checkpoint was trained on")
    parser.add_argument("--levels", type=numbers, help="default: the levels the checkpoint was trained on")
    parser.add_argument("--n", type=at_least(1), default=200, help="items for each seed (default: 200)")
    parser.add_argument("--seeds", type=numbers, default=(1, 2), help="default: 1,2")
    parser.add_argument("--batch-size", type=at_least(1), default=32)
    add_output(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from latent_reason import checkpoint, methods
from latent_reason.checkpoint.training_data import make_task
from latent_reason.decoding.items import Result, distinct_items, main_score
from latent_reason.decoding.strategies import make_decoding
from latent_reason.files import atomic_write_json
from latent_reason.outputs import check_output
from latent_reason.tasks import Item, Task

from .resume import ProgressFile, items_digest, model_digest
from .run import decode_kept
from .statistics import paired_bootstrap, wilson

console = Console(soft_wrap=True)
COSTS = ("tokens", "latents", "passes")


def describe(result: Result) -> dict:
    """What is kept of one answer, as JSON."""
    return {"right": float(result.scores[main_score([result])]), **result.cost._asdict()}


def compare(reasoner, task, items: list, names: list[str], seed: int, progress: ProgressFile | None, batch_size: int):
    """Answers of each method to the items, in their order: name -> what :func:`describe` says."""
    answers = {}
    for name in names:
        label = f"seed {seed} {name}"
        answers[name] = decode_kept(
            reasoner, None, task, items, label, describe, batch_size, progress, decoding=make_decoding(name), seed=seed
        )
    return answers


def summarise(answers: dict[str, list[dict]], plain: str) -> list[dict]:
    """One row for each method: accuracy with a Wilson interval, its paired difference to ``plain``, and mean costs."""
    rows = []
    for name, found in answers.items():
        right = [one["right"] for one in found]
        interval = wilson(sum(right), len(right))
        row = {
            "decoding": name,
            "n": len(right),
            "accuracy": interval.estimate,
            "low": interval.low,
            "high": interval.high,
        }
        row |= {cost: sum(one[cost] for one in found) / len(found) for cost in COSTS}
        row["seconds"] = sum(one["seconds"] for one in found) / len(found)
        if name != plain:
            gap = paired_bootstrap(right, [one["right"] for one in answers[plain]])
            row["difference"] = {"value": gap.estimate, "low": gap.low, "high": gap.high}
        rows.append({key: round(x, 4) if isinstance(x, float) else x for key, x in row.items()})
    return rows


def table_of(rows: list[dict], title: str) -> Table:
    """The rows as a table for the console."""
    table = Table(title=title)
    for column in ("decoding", "accuracy", "against plain", *COSTS):
        table.add_column(column, **({"overflow": "fold"} if column == "decoding" else {"justify": "right"}))
    for row in rows:
        gap = row.get("difference")
        against = f"{gap['value']:+.3f}\n{gap['low']:+.2f} to {gap['high']:+.2f}" if gap else "-"
        accuracy = f"{row['accuracy']:.3f}\n{row['low']:.2f}-{row['high']:.2f}"
        table.add_row(row["decoding"], accuracy, against, *(f"{row[cost]:.1f}" for cost in COSTS))
    return table


def main(argv: list[str] | None = None) -> None:
    with cli_errors():
        run(parse_arguments(argv))


def run(args: argparse.Namespace) -> None:
    """The whole comparison, with a table and a JSON file."""
    names, began, out = (
        ["plain", *(n for n in args.decodings if n != "plain")],
        time.time(),
        check_output(args.out, args.overwrite),
    )
    for name in names:
        make_decoding(name)  # a mistake is told before anything is loaded
    reasoner, _ = checkpoint.load(args.checkpoint)
    sets: list[tuple[int, Task, list[Item]]] = []
    for seed in args.seeds:
        task = make_task(reasoner.method.notes, args.checkpoint, args.task, levels=args.levels, split="test", seed=seed)
        sets.append((seed, task, distinct_items(task, args.n)))
    identity = {
        "command": "eval.decodings",
        "model": model_digest(args.checkpoint),
        "items": items_digest(item for *_, items in sets for item in items),
        "task": task.name,
        "names": names,
        "n": args.n,
        "seeds": list(args.seeds),
    }
    with ProgressFile(out.with_suffix(".unfinished"), identity) as progress:
        every: dict[str, list[dict]] = {name: [] for name in names}
        by_seed = {}
        for seed, task, items in sets:
            answers = compare(reasoner, task, items, names, seed, progress, args.batch_size)
            by_seed[str(seed)] = summarise(answers, "plain")
            for name, found in answers.items():
                every[name] += found
        rows = summarise(every, "plain")
        report = {
            "schema": 1,
            "checkpoint": Path(args.checkpoint).as_posix(),
            "method": reasoner.method.name,
            "mode": methods.load(reasoner.method.name).MODE,
            "task": task.name,
            "levels": list(task.levels),
            "n": args.n,
            "seeds": list(args.seeds),
            "results": rows,
            "by_seed": by_seed,
            "seconds": round(time.time() - began, 1),
        }
        atomic_write_json(out, report)
        progress.remove()
    console.print(table_of(rows, f"{task.name}: {rows[0]['n']} items, seeds {', '.join(map(str, args.seeds))}"))
    console.print(f"Results written to {args.out}")


if __name__ == "__main__":
    main()
