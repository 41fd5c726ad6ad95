"""Accuracy and cost of explicit thinking: a baseline on held-out items of a task.

    python -m eval.baselines CHECKPOINT --baseline crop:turns=4 --out FILE.json
        [--task wall_maze] [--levels 3,4] [--n 200] [--seed 1] [--run-code] [--page FILE.html]
    python -m eval.baselines --list

Without ``--baseline``, the one that the checkpoint was trained on. FILE.items.jsonl beside FILE.json has one line an item,
which eval.compare reads. ``--page`` shows the first chats with all their pictures. Code that a model writes runs in a sandbox,
and only with ``--run-code``. The same command resumes an interrupted run from FILE.unfinished.
"""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from latent_reason.cli.arguments import add_limits, add_output, limits_of
from latent_reason.errors import at_least, cli_errors, numbers
from latent_reason.values import Seed, Temperature, argument

from . import load, make_baseline, names

console = Console(soft_wrap=True)
ON_PAGE = 12
DEFAULT_TOKENS = 640  # as in eval.run


class ListBaselines(argparse.Action):
    """``--list``: print all baselines and end."""

    def __call__(self, parser, *given) -> None:
        table = Table(title="Baselines of explicit thinking")
        for column in ("baseline", "source", "idea"):
            table.add_column(column, overflow="fold")
        for name in names():
            table.add_row(name, load(name).PAPER, load(name).SUMMARY)
        console.print(table)
        parser.exit()


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.baselines", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--list", action=ListBaselines, nargs=0, help="print all baselines")
    parser.add_argument(
        "--baseline", metavar="NAME", help="with options as in crop:turns=2; default: that of its training"
    )
    parser.add_argument("--task", help="default: the task it was trained on")
    parser.add_argument("--levels", type=numbers, help="such as 3,4; default: the levels it was trained on")
    parser.add_argument("--n", type=at_least(1), default=200, help="items per level (default: 200)")
    parser.add_argument("--seed", type=argument(Seed), default=1, help="of the items and of all randomness")
    parser.add_argument("--temperature", type=argument(Temperature), default=0.0, help="default: 0, greedy decoding")
    parser.add_argument(
        "--max-new-tokens", type=at_least(1), default=DEFAULT_TOKENS, help="of all turns together (default: 640)"
    )
    parser.add_argument("--batch-size", type=at_least(1), default=32)
    parser.add_argument("--run-code", action="store_true", help="run code that the model writes, in a sandbox")
    parser.add_argument("--page", metavar="FILE.html", help=f"show the chats of the first {ON_PAGE} items of a level")
    add_limits(parser)
    add_output(parser, "FILE.json; FILE.items.jsonl is written beside it")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

import time
from pathlib import Path

from eval.item_lines import items_path, write_items
from eval.resume import ProgressFile, items_digest, model_digest
from eval.run import ItemGroup, item_groups, item_lines, item_options, result_rows, results_table, set_label
from eval.turns.baseline import Baseline
from eval.turns.episodes import Episode, EpisodeLimits, check_baseline
from eval.turns.evaluate import COSTS, answer_items
from eval.turns.page import write_chats
from latent_reason import checkpoint, tasks
from latent_reason.checkpoint.training_data import TrainingData, trained_task
from latent_reason.files import atomic_write_json, atomic_write_text
from latent_reason.model.limits import InputLimits
from latent_reason.outputs import check_output


def main(argv: list[str] | None = None) -> None:
    with cli_errors():
        evaluate_to_file(parse_arguments(argv))


def evaluate_to_file(args: argparse.Namespace) -> None:
    start, out = time.time(), check_output(args.out, args.overwrite)
    items_file = check_output(items_path(out), args.overwrite)
    page = check_output(args.page, args.overwrite) if args.page else None
    model, decoder = checkpoint.load(args.checkpoint)
    data = TrainingData.of(model.method.notes)
    name = args.baseline or data.baseline
    if not name:
        raise ValueError(f"'{args.checkpoint}' was not trained on a baseline. Name one with --baseline.")
    baseline = make_baseline(name)
    check_baseline(baseline, model, decoder, args.run_code)
    limits_of(args).apply_to(model.backbone)
    task = args.task or trained_task(model.method.notes, args.checkpoint)
    levels = args.levels or data.levels or tasks.make(task).levels
    groups = item_groups([task], list(levels), args.n, args.seed, options=data.options)
    limits = EpisodeLimits(args.max_new_tokens, args.temperature, args.seed)
    with ProgressFile(out.with_suffix(".unfinished"), run_identity(args, baseline, name, groups)) as progress:
        rows, shown = evaluate(model, decoder, baseline, groups, limits, args.batch_size, progress, page is not None)
        report = {
            "schema": 1,
            "checkpoint": Path(args.checkpoint).as_posix(),
            "method": baseline.name,
            "trained_as": model.method.name,
            "baseline": name,
            "decoding": describe_decoding(args),
            "options": {task: item_options(task, data.options)},
            "limits": InputLimits.of(model.backbone).to_json() | {"max_new_tokens": args.max_new_tokens},
            "seed": args.seed,
            "seconds": round(time.time() - start, 1),
            "results": rows,
        }
        write_items(items_file, item_lines(groups, progress.kept))
        if page is not None:
            atomic_write_text(page, write_chats(shown, f"{baseline.name} on {task}"))
        atomic_write_json(out, report)
        progress.remove()
    console.print(results_table(rows))
    console.print(costs_table(rows))
    console.print(f"Results written to {args.out}, single items to {items_file}")


def evaluate(
    model,
    decoder,
    baseline: Baseline,
    groups: list[ItemGroup],
    limits: EpisodeLimits,
    batch_size: int,
    progress: ProgressFile,
    shows: bool = False,
) -> tuple[list[dict], list[tuple[Episode, dict, str]]]:
    """(result rows per level and over all, the first chats with what is kept of them and their gold answers)."""
    rows, chats, every = [], list[tuple[Episode, dict, str]](), list[dict]()
    for group in groups:
        for one in group.sets:
            shown: dict[int, Episode | None] = dict.fromkeys(range(min(ON_PAGE, len(one.items)))) if shows else {}
            label = set_label(group, one)
            found = answer_items(
                model, decoder, baseline, one.task, one.items, label, limits, batch_size, progress, shown
            )
            rows += rows_of(found, group.name, one.level, group.split)
            chats += [(episode, found[place], one.items[place].answer) for place, episode in shown.items() if episode]
            every += found
        if len(group.sets) > 1:
            rows += rows_of(every, group.name, group.label, group.split)
    return rows, chats


def rows_of(found: list[dict], task: str, level, split: str) -> list[dict]:
    """Result rows as of eval.run, with the further costs."""
    rows = result_rows([one | {"sketch_scores": []} for one in found], task, level, split)
    like = {"task": task, "level": level, "split": split, "n": len(found), "low": None, "high": None}
    for name in COSTS[2:]:
        mean = sum(one[name] for one in found) / len(found)
        rows.append(like | {"metric": f"{name}_per_item", "value": round(mean, 3)})
    cut = sum(one["ended"] != "answer" for one in found) / len(found)
    return [*rows, like | {"metric": "cut_off", "value": round(cut, 4)}]


def costs_table(rows: list[dict]) -> Table:
    """Mean costs of an answer."""
    table = Table(title="mean cost of an answer")
    for column in ("items", *COSTS):
        table.add_column(column, justify="left" if column == "items" else "right")
    for level in dict.fromkeys(str(row["level"]) for row in rows):
        values = {row["metric"]: row["value"] for row in rows if str(row["level"]) == level}
        table.add_row(f"level {level}", *(f"{values[f'{name}_per_item']:.1f}" for name in COSTS))
    return table


def describe_decoding(args: argparse.Namespace) -> str:
    """How answers were decoded, as a protocol says it."""
    how = "greedy" if not args.temperature else f"temperature {args.temperature:g}"
    return how if args.max_new_tokens == DEFAULT_TOKENS else f"{how}, {args.max_new_tokens} new tokens"


def run_identity(args: argparse.Namespace, baseline: Baseline, name: str, groups: list[ItemGroup]) -> dict:
    """All that must be equal to resume a run."""
    given = ("n", "seed", "temperature", "max_new_tokens", "min_pixels", "max_pixels", "max_length")
    return {
        "command": "eval.baselines",
        "model": model_digest(args.checkpoint),
        "items": items_digest(item for group in groups for one in group.sets for item in one.items),
        "baseline": name,
        "fingerprint": baseline.fingerprint,
        **{key: getattr(args, key) for key in given},
    }


if __name__ == "__main__":
    main()
