"""Selects what to train on by what a checkpoint gets wrong: items that need their sketch, or all items that it fails.

    python -m eval.item_filter CHECKPOINT --out keep.json [--task frozenlake_plan] [--levels 3,4] [--n 2000]
    python -m eval.item_filter BASE --keep failed --out keep.json --task plan_check --levels 3,4 [--options JSON]
    python -m train.sft --config RECIPE --data.include_ids keep.json
    python -m eval.item_filter BASE --keep failed --folder FOLDER --out DIR
    python -m train.sft --config RECIPE --data.folder DIR

``--keep needed`` (the default) keeps the items that the model fails without their sketch and solves with the true one, so
that no item is left whose answer cannot depend on a sketch. (arXiv 2605.18445 keeps a data set only if its sketches help.)
``--keep failed`` keeps the items that the model, as it decodes by itself, answers wrong in one greedy answer: those that a
base model cannot do yet (after GAP, 2605.12374). With ``--folder``, these are the training records of a folder, graded by
their checkers; DIR gets them with the records of all other splits.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from latent_reason.cli.arguments import add_output
from latent_reason.errors import at_least, cli_errors, numbers
from latent_reason.values import Seed, argument


def task_options(text: str) -> dict[str, Any]:
    """An argparse type: options of a task as JSON."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"""{text[:40]!r}: write options as JSON, such as '{{"chunk": [1, 1]}}'""")
    return found


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.item_filter", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    add_output(parser)
    parser.add_argument("--keep", choices=("needed", "failed"), default="needed", help="which items (default: needed)")
    parser.add_argument("--task", help="default: the training task of the checkpoint")
    parser.add_argument("--levels", type=numbers, help="such as 3,4; default: the training levels of the checkpoint")
    parser.add_argument(
        "--options", type=task_options, metavar="JSON", help="as data.options in a recipe; default: the checkpoint's"
    )
    parser.add_argument("--folder", help="native records instead of a task; --out is then a new folder of such records")
    parser.add_argument("--n", type=at_least(1), default=2000)
    parser.add_argument("--seed", type=argument(Seed), default=0, help="seed of the items, as data.seed in a recipe")
    parser.add_argument(
        "--max-new", type=at_least(1), default=640, help="maximum number of new positions of an answer (failed)"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

from pathlib import Path

from rich.console import Console

from latent_reason import checkpoint, methods, tasks
from latent_reason.checkpoint.training_data import TrainingData, make_task, trained_task
from latent_reason.data import native
from latent_reason.decoding.items import decode, main_score
from latent_reason.files import atomic_write_json
from latent_reason.outputs import check_output, check_output_folder
from latent_reason.tasks import Item
from latent_reason.trace import Trace

from .interventions import Oracle
from .records import RecordTask, make_item

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


def find_failed(reasoner, task, items: list[Item], mode: str, max_new_tokens: int = 640) -> list[int]:
    """Which of the items a model answers wrong, as numbers in the list."""
    results = decode(reasoner, None, task, items, mode, max_new_tokens=max_new_tokens, progress="answers")
    return [number for number, result in enumerate(results) if result.scores[main_score([result])] < 1]


class AnsweredRecords(RecordTask):
    """The first n training records of a folder that have an answer, as items; ``others`` are those of other splits, and
    ``left_out`` counts training records without an answer.

    Raises:
        DataError, FileNotFoundError: the folder cannot be read.
        ValueError: a checker is unknown or rejects the answer of its own record; no record has an answer.
    """

    def __init__(self, folder: str | Path, n: int):
        self.traces, self.others, self.left_out = list[Trace](), list[Trace](), 0
        for trace in native.read(folder):
            if trace.split != "train":
                self.others.append(trace)
            elif trace.answer is None:
                self.left_out += 1
            elif len(self.traces) < n:
                self.traces.append(trace)
        if not self.traces:
            raise ValueError(f"'{folder}' has no training record with an answer, so none can be graded.")
        self.items = [make_item(trace, index) for index, trace in enumerate(self.traces)]
        for item in self.items:
            self.check_item(item)

    def trace(self, item: Item, mode: str = "mixed") -> Trace:
        return self.traces[item.index]


def main(argv: list[str] | None = None) -> None:
    with cli_errors():
        args = parse_arguments(argv)
        filter_folder(args) if args.folder else filter_to_file(args)


def filter_folder(args: argparse.Namespace) -> None:
    """Write the records that a checkpoint answers wrong as a folder."""
    if args.keep != "failed" or args.task or args.levels or args.options:
        raise ValueError("--folder takes records instead of a task. Add --keep failed, and no option of a task.")
    check_output_folder(args.out)
    reasoner, _ = checkpoint.load(args.checkpoint)
    records = AnsweredRecords(args.folder, args.n)
    mode = methods.load(reasoner.method.name).MODE
    failed = find_failed(reasoner, records, records.items, mode, args.max_new)
    if not failed:
        raise ValueError(
            f"all {len(records.items):,} training records are answered right, so none is left. Use others."
        )
    native.write([*(records.traces[number] for number in failed), *records.others], args.out)
    console.print(
        f"Of {len(records.items):,} training records, {len(failed):,} are answered wrong ({records.left_out:,} more have no "
        f"answer). They are in {args.out}, with {len(records.others):,} of other splits. To train on them: --data.folder "
        f"{args.out}"
    )


def filter_to_file(args: argparse.Namespace) -> None:
    check_output(args.out, args.overwrite)
    reasoner, _ = checkpoint.load(args.checkpoint)
    if args.keep == "needed" and not reasoner.is_renderable:
        raise ValueError(
            f"'{args.checkpoint}' uses the method {reasoner.method.name!r}, which cannot encode a true sketch. Use a "
            "checkpoint of a method whose latents encode images, or --keep failed."
        )
    notes = reasoner.method.notes
    name = args.task or trained_task(notes, args.checkpoint)
    options = tasks.own(name, TrainingData.of(notes).options) if args.options is None else args.options
    task = make_task(
        notes, args.checkpoint, name, levels=args.levels, options=_as_tuples(options), split="train", seed=args.seed
    )
    mode = methods.load(reasoner.method.name).MODE
    if args.keep == "failed":
        keep = find_failed(reasoner, task, [task[i] for i in range(args.n)], mode, args.max_new)
        counts = {"answered right": args.n - len(keep), "answered wrong": len(keep)}
    else:
        keep, counts = find_items_that_need_sketch(reasoner, task, args.n, mode)
    atomic_write_json(
        args.out,
        {
            "schema": 1,
            "checkpoint": Path(args.checkpoint).as_posix(),
            "task": name,
            "version": task.version,
            "options": options,
            "levels": list(task.levels),
            "seed": args.seed,
            "n": args.n,
            "kept": args.keep,
            "solved": counts,
            "keep": keep,
        },
    )
    console.print(f"Of {args.n} items: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    console.print(
        f"{len(keep)} items {'need their sketch' if args.keep == 'needed' else 'failed'}. Results written to {args.out}. To "
        f"train on them: --data.include_ids {args.out}"
    )


def _as_tuples(options: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


if __name__ == "__main__":
    main()
