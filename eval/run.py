"""Accuracy of a checkpoint on held-out items, and on the VSP benchmark.

    python -m eval.run CHECKPOINT --tasks frozenlake_plan --levels 3,4,5,6 --n 200 --seed 1 [--vsp DIR] --out FILE.json

``--n`` is the number of distinct items per level; a level with fewer items uses all of them. For FrozenLake the report
also has two baselines: a plan that ignores the holes (``hole_blind``) and the best fixed answer (``constant``). Compare
success rates with them. FILE.items.jsonl beside FILE.json has one line an item, which eval.compare reads. The same
command resumes an interrupted run from FILE.unfinished.
"""

from __future__ import annotations

import argparse

from latent_reason.cli.arguments import add_decoding, add_limits, add_output, limits_of
from latent_reason.errors import at_least, cli_errors, numbers
from latent_reason.values import Seed, argument


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--tasks", default="frozenlake_plan", type=lambda t: t.split(","))
    parser.add_argument("--levels", default="3,4,5,6", type=numbers)
    parser.add_argument("--n", type=at_least(1), default=200, help="items per level")
    parser.add_argument("--seed", type=argument(Seed), default=1)
    parser.add_argument("--vsp", help="folder of the VSP benchmark (maze/task-main)")
    parser.add_argument("--batch-size", type=at_least(1), default=32)
    add_decoding(parser)
    add_limits(parser)
    add_output(parser, "FILE.json; FILE.items.jsonl is written beside it")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from latent_reason import checkpoint, methods, tasks
from latent_reason.checkpoint.training_data import TrainingData
from latent_reason.decoding.items import Result, decode_each, distinct_items
from latent_reason.decoding.strategies import make_decoding
from latent_reason.files import atomic_write_json
from latent_reason.model.batch import TEXT
from latent_reason.model.limits import InputLimits
from latent_reason.outputs import check_output
from latent_reason.tasks import Item, vsp

from .item_lines import items_path, write_items
from .resume import ProgressFile, items_digest, model_digest
from .statistics import wilson

console = Console(soft_wrap=True)
#: what a line of an item has of its result
LINE = ("scores", "sketches", "latents", "tokens", "passes", "pictures", "turns", "calls", "ended", "text", "seconds")
TRACE_OPTIONS = ("chunk", "omit_state_p", "control")  # task options that change the trace, but not the item


SKETCH_METRICS = ("valid", "equal", "legal", "gold")


def measured(result: Result) -> dict:
    """What the report needs of one decoded item, as JSON."""
    spans = result.rollout.spans_of(result.row)
    return {
        "scores": result.scores,
        "sketch_scores": [{name: float(sketch[name]) for name in SKETCH_METRICS} for sketch in result.sketches],
        "sketches": len(spans),
        "latents": sum(span.length for span in spans),
        "tokens": int((result.rollout.token_type[result.row] == TEXT).sum()),
        "passes": result.cost.passes,
    }


def result_rows(results: list[dict], task: str, level, split: str) -> list[dict]:
    """One row per metric: its mean with a Wilson interval, and costs per item. Scores lie in 0-1. ``results`` are those
    of :func:`measured`."""
    metrics = {n: [r["scores"][n] for r in results] for n in results[0]["scores"]}
    sketches = [s for r in results for s in r["sketch_scores"]]
    metrics |= {f"sketch_{n}": [s[n] for s in sketches] for n in SKETCH_METRICS if sketches}
    out = [metric_row(task, level, split, name, values) for name, values in metrics.items()]
    for name in ("sketches", "latents", "tokens"):
        count = sum(r[name] for r in results)
        out.append(
            {
                "task": task,
                "level": level,
                "split": split,
                "n": len(results),
                "metric": f"{name}_per_item",
                "value": round(count / len(results), 3),
                "low": None,
                "high": None,
            }
        )
    return out


def metric_row(task: str, level, split: str, metric: str, values: list[float]) -> dict:
    interval = wilson(sum(values), len(values))
    return {
        "task": task,
        "level": level,
        "split": split,
        "n": len(values),
        "metric": metric,
        "value": round(interval.estimate, 4),
        "low": round(interval.low, 4),
        "high": round(interval.high, 4),
    }


def has_baselines(name: str) -> bool:
    """Whether a task has plans that ignore the image."""
    return name.startswith("frozenlake")


def baselines(task, items, train_items, name: str, level, split: str) -> list[dict]:
    """Scores of plans that ignore the image, or its holes. Empty for other tasks than FrozenLake."""
    if not has_baselines(name):
        return []
    constant, _ = vsp.constant_plan(train_items, longest=20)
    scores = {
        "constant": [task.score(f"\\boxed{{{constant}}}", i.meta)["success"] for i in items],
        "hole_blind": [task.score(f"\\boxed{{{vsp.hole_blind(i)}}}", i.meta)["success"] for i in items],
    }
    return [metric_row(name, level, split, metric, values) for metric, values in scores.items()]


@dataclass(frozen=True)
class ItemSet:
    """Items of one level. ``task`` decodes and scores them; the best constant comes from ``train_items``."""

    level: int
    task: tasks.Task
    items: list[Item]
    train_items: list[Item]


@dataclass(frozen=True)
class ItemGroup:
    """The sets of a task, or of the VSP benchmark, and what its row over all levels needs (``label``, ``train_items``)."""

    name: str
    split: str
    label: str
    sets: list[ItemSet]
    train_items: list[Item]


def item_groups(
    names: list[str], levels: list[int], n: int, seed: int, *, vsp_folder=None, options: dict | None = None
) -> list[ItemGroup]:
    """One group for each task, and one for the benchmark.

    Raises:
        ValueError, FileNotFoundError: unknown task or level, or missing benchmark; raised before any item is made.
    """

    def make(name: str, level, split: str, **more):
        return tasks.make(name, split=split, seed=seed, level=level, **tasks.own(name, options or {}) | more)

    label, all_levels = f"{min(levels)}-{max(levels)}", tuple(levels)
    for name in names:
        for level in (*levels, all_levels):
            make(name, level, "test")
    benchmark = list(vsp.plan_items(vsp_folder, levels)) if vsp_folder else []
    groups = []
    for name in names:
        sets = []
        for level in levels:
            held_out, train_task = make(name, level, "test"), make(name, level, "train")
            train_items = [train_task[i] for i in range(300)] if has_baselines(name) else []
            sets.append(ItemSet(level, held_out, distinct_items(held_out, n), train_items))
            if len(sets[-1].items) < n:
                console.print(f"{name}, level {level}: only {len(sets[-1].items)} distinct held-out items exist")
        train_task = make(name, all_levels, "train")
        train_items = [train_task[i] for i in range(500)] if has_baselines(name) else []
        groups.append(ItemGroup(name, "test", label, sets, train_items))
    if benchmark:
        name, like = "frozenlake_plan", {"seed": seed, "level": all_levels, "dist": "vsp"}
        task, train_task = (tasks.make(name, split=split, **like) for split in ("test", "train"))
        train_items = [train_task[i] for i in range(500)]
        sets = [
            ItemSet(level, task, [item for item in benchmark if item.level == level], train_items)
            for level in sorted({item.level for item in benchmark})
        ]
        groups.append(ItemGroup(name, "vsp", label, sets, train_items))
    return groups


def item_key(label: str, place: int, item: Item) -> str:
    """The key of an item's result in the file of an unfinished run."""
    return f"{label} {place} {item.id}"


def decode_kept(
    reasoner,
    decoder,
    task: tasks.Task,
    items: list[Item],
    label: str,
    measure: Callable[[Result], dict],
    batch_size: int,
    progress: ProgressFile | None,
    **options,
) -> list[dict]:
    """What ``measure`` says of each decoded item, and ``seconds``, the time until it finished since the one before it
    did. Items that ``progress`` has under this label are not decoded again. ``options`` go to :func:`decode_each`."""
    mode, kept = methods.load(reasoner.method.name).MODE, {} if progress is None else progress.kept
    keys = [item_key(label, place, item) for place, item in enumerate(items)]
    found = {key: kept[key] for key in keys if key in kept}
    missing = [place for place, key in enumerate(keys) if key not in found]
    chosen, before = [items[place] for place in missing], time.time()
    answers = decode_each(reasoner, decoder, task, chosen, mode, batch_size=batch_size, row_ids=missing, **options)
    for number, result in track(answers, label, len(missing), transient=Console().is_terminal):
        seconds = round(time.time() - before, 6)
        new = {keys[missing[number]]: measure(result) | {"seconds": seconds}}
        found |= new
        if progress is not None:
            progress.add(new)
        before = time.time()  # what is measured of an answer is no part of its time
    return [found[key] for key in keys]


def evaluate(
    reasoner,
    decoder,
    groups: list[ItemGroup],
    *,
    batch_size: int = 32,
    progress: ProgressFile | None = None,
    decoding: str = "plain",
) -> list[dict]:
    """All result rows, per level and over all levels of a group. ``decoding`` as of :func:`make_decoding`."""
    answer = make_decoding(decoding)
    rows = []
    for group in groups:
        name, split, all_results = group.name, group.split, []
        for one in group.sets:
            label = set_label(group, one)
            results = decode_kept(
                reasoner, decoder, one.task, one.items, label, measured, batch_size, progress, decoding=answer
            )
            rows += result_rows(results, name, one.level, split)
            rows += baselines(one.task, one.items, one.train_items, name, one.level, split)
            all_results += results
        if len(group.sets) > 1 or split == "vsp":
            items = [item for one in group.sets for item in one.items]
            rows += result_rows(all_results, name, group.label, split)
            rows += baselines(group.sets[-1].task, items, group.train_items, name, group.label, split)
    return rows


def set_label(group: ItemGroup, one: ItemSet) -> str:
    return f"{group.name} {group.split} level {one.level}"


def item_lines(groups: list[ItemGroup], kept: dict[str, dict]) -> list[dict]:
    """One line an item, from the results by :func:`item_key`."""
    lines = []
    for group in groups:
        for one in group.sets:
            for place, item in enumerate(one.items):
                found = kept[item_key(set_label(group, one), place, item)]
                about = {"id": item.id, "task": group.name, "split": group.split, "level": one.level}
                lines.append(about | {name: found[name] for name in LINE if name in found})
    return lines


COLUMNS = {
    "accuracy": "accuracy",
    "success": "success",
    "exact": "shortest",
    "sketch_equal": "sketch right",
    "constant": "best constant",
    "hole_blind": "blind to holes",
}


def results_table(rows: list[dict]) -> Table:
    """The main metrics, one line per set of items; the JSON has all metrics."""
    sets: dict[tuple, dict] = {}
    for r in rows:
        sets.setdefault((r["task"], r["split"], str(r["level"])), {})[r["metric"]] = r
    task_names = sorted({task for task, *_ in sets})
    output = Table(title=f"{', '.join(task_names)}: accuracy with 95 % Wilson interval")
    titles = [m for m in COLUMNS if any(m in metrics for metrics in sets.values())]
    for title in ("items", "n", *(COLUMNS[m] for m in titles)):
        output.add_column(title, justify="left" if title == "items" else "right")
    for (task, split, level), metrics in sets.items():
        cells = [
            f"{m['value']:.3f}\n{m['low']:.2f}-{m['high']:.2f}" if (m := metrics.get(name)) else "-" for name in titles
        ]
        n = next((m["n"] for name, m in metrics.items() if name in ("success", "accuracy")), "")
        output.add_row(f"{split} level {level}\n{task if len(task_names) > 1 else ''}", str(n), *cells)
    return output


def main(argv: list[str] | None = None) -> None:
    with cli_errors():
        evaluate_to_file(parse_arguments(argv))


def evaluate_to_file(args: argparse.Namespace) -> None:
    start, out = time.time(), check_output(args.out, args.overwrite)
    items_file = check_output(items_path(out), args.overwrite)
    reasoner, decoder = checkpoint.load(args.checkpoint)
    limits_of(args).apply_to(reasoner.backbone)
    options = TrainingData.of(reasoner.method.notes).options
    groups = item_groups(args.tasks, args.levels, args.n, args.seed, vsp_folder=args.vsp, options=options)
    with ProgressFile(out.with_suffix(".unfinished"), run_identity(args, groups)) as progress:
        rows = evaluate(
            reasoner, decoder, groups, batch_size=args.batch_size, progress=progress, decoding=args.decoding
        )
        report = {
            "schema": 1,
            "checkpoint": Path(args.checkpoint).as_posix(),
            "method": reasoner.method.name,
            "decoding": "greedy" if args.decoding == "plain" else args.decoding,
            "options": {name: item_options(name, options) for name in args.tasks},
            "limits": InputLimits.of(reasoner.backbone).to_json(),
            "seed": args.seed,
            "seconds": round(time.time() - start, 1),
            "results": rows,
        }
        write_items(items_file, item_lines(groups, progress.kept))
        atomic_write_json(out, report)
        progress.remove()
    console.print(results_table(rows))
    console.print(f"Results written to {args.out}, single items to {items_file}")


def item_options(name: str, options: dict) -> dict:
    """The options of a task that decide its items."""
    return {key: value for key, value in tasks.own(name, options).items() if key not in TRACE_OPTIONS}


def run_identity(args: argparse.Namespace, groups: list[ItemGroup]) -> dict:
    """All that must be equal to resume a run. Answers depend on the place of an item, so the order is a part of it."""
    items = (item for group in groups for one in group.sets for item in one.items)
    names = ("tasks", "levels", "n", "seed", "decoding", "min_pixels", "max_pixels", "max_length")
    return {
        "command": "eval.run",
        "model": model_digest(args.checkpoint),
        "items": items_digest(items),
        **{name: getattr(args, name) for name in names},
    }


if __name__ == "__main__":
    main()
