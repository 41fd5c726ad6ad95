"""Accuracy of a checkpoint on held-out items, and on the VSP benchmark.

    python -m eval.run CHECKPOINT --tasks frozenlake_plan --levels 3,4,5,6 --n 200 --seed 1 [--vsp DIR] --out FILE.json

``--n`` is the number of distinct items per level; a level with fewer items uses all of them. For FrozenLake the report
also has two baselines: a plan that ignores the holes (``hole_blind``) and the best fixed answer (``constant``). Compare
success rates with them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from latent_reason import checkpoint, methods, tasks
from latent_reason.decoding.items import Result, decode, distinct_items
from latent_reason.errors import at_least, cli_errors, numbers
from latent_reason.files import atomic_write_json
from latent_reason.model.batch import TEXT
from latent_reason.tasks import vsp
from latent_reason.values import Seed, argument

from .statistics import wilson

console = Console(soft_wrap=True)
TRACE_OPTIONS = ("chunk", "omit_state_p", "control")  # task options that change the trace, but not the item


def result_rows(results: list[Result], task: str, level, split: str) -> list[dict]:
    """One row per metric: its mean with a Wilson interval, and costs per item. Scores lie in 0-1."""
    metrics = {n: [r.scores[n] for r in results] for n in results[0].scores}
    sketches = [s for r in results for s in r.sketches]
    metrics |= {f"sketch_{n}": [float(s[n]) for s in sketches] for n in ("valid", "equal", "legal", "gold") if sketches}
    out = [metric_row(task, level, split, name, values) for name, values in metrics.items()]
    spans = [r.rollout.spans_of(r.row) for r in results]
    costs = {
        "sketches": sum(map(len, spans)),
        "latents": sum(span.length for row_spans in spans for span in row_spans),
        "tokens": sum(int((r.rollout.token_type[r.row] == TEXT).sum()) for r in results),
    }
    for name, count in costs.items():
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


def baselines(task, items, train_items, name: str, level, split: str) -> list[dict]:
    """Scores of plans that ignore the image, or its holes. Empty for other tasks than FrozenLake."""
    if not name.startswith("frozenlake"):
        return []
    constant, _ = vsp.constant_plan(train_items, longest=20)
    scores = {
        "constant": [task.score(f"\\boxed{{{constant}}}", i.meta)["success"] for i in items],
        "hole_blind": [task.score(f"\\boxed{{{vsp.hole_blind(i)}}}", i.meta)["success"] for i in items],
    }
    return [metric_row(name, level, split, metric, values) for metric, values in scores.items()]


def evaluate(
    reasoner,
    decoder,
    names: list[str],
    levels: list[int],
    n: int,
    seed: int,
    *,
    vsp_folder=None,
    options: dict | None = None,
    batch_size: int = 32,
    report_line=console.print,
) -> tuple[list[dict], list[Result]]:
    """All result rows, per level and over all levels, and the decoded items.

    Raises:
        ValueError, FileNotFoundError: unknown task or level, or missing benchmark; raised before decoding.
    """
    mode, rows, all_results = methods.load(reasoner.method.name).MODE, [], []
    task_options = {name: tasks.own(name, options or {}) for name in names}
    task_by_key = {
        (name, level, split): tasks.make(name, split=split, seed=seed, level=level, **task_options[name])
        for name in names
        for level in [*levels, tuple(levels)]
        for split in ("test", "train")
    }
    benchmark = list(vsp.plan_items(vsp_folder, levels)) if vsp_folder else []

    def evaluate_set(task, items, train_items, name, level, split):
        results = decode(
            reasoner, decoder, task, items, mode, batch_size=batch_size, progress=f"{name} {split} level {level}"
        )
        rows.extend(result_rows(results, name, level, split) + baselines(task, items, train_items, name, level, split))
        return results

    for name in names:
        set_results = []
        for level in levels:
            held_out, train_task = task_by_key[name, level, "test"], task_by_key[name, level, "train"]
            items = distinct_items(held_out, n)
            if len(items) < n:
                report_line(f"{name}, level {level}: only {len(items)} distinct held-out items exist")
            set_results += evaluate_set(held_out, items, [train_task[i] for i in range(300)], name, level, "test")
        if len(levels) > 1:
            label = f"{min(levels)}-{max(levels)}"
            rows.extend(result_rows(set_results, name, label, "test"))
            train_task = task_by_key[name, tuple(levels), "train"]
            rows.extend(
                baselines(
                    held_out, [r.item for r in set_results], [train_task[i] for i in range(500)], name, label, "test"
                )
            )
        all_results += set_results
    if benchmark:
        all_results += evaluate_benchmark(evaluate_set, rows, benchmark, levels, seed)
    return rows, all_results


def evaluate_benchmark(evaluate_set, rows, items, levels, seed) -> list[Result]:
    task = tasks.make("frozenlake_plan", split="test", seed=seed, level=tuple(levels), dist="vsp")
    train_task = tasks.make("frozenlake_plan", split="train", seed=seed, level=tuple(levels), dist="vsp")
    train_items, set_results = [train_task[i] for i in range(500)], []
    for level in sorted({i.level for i in items}):
        set_results += evaluate_set(
            task, [i for i in items if i.level == level], train_items, "frozenlake_plan", level, "vsp"
        )
    label = f"{min(levels)}-{max(levels)}"
    rows.extend(result_rows(set_results, "frozenlake_plan", label, "vsp"))
    rows.extend(baselines(task, [r.item for r in set_results], train_items, "frozenlake_plan", label, "vsp"))
    return set_results


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
    parser.add_argument("--out", required=True)
    with cli_errors():
        evaluate_to_file(parser.parse_args(argv))


def evaluate_to_file(args: argparse.Namespace) -> None:
    start = time.time()
    reasoner, decoder = checkpoint.load(args.checkpoint)
    options = reasoner.method.notes.get("data", {}).get("options", {})
    rows, _ = evaluate(
        reasoner,
        decoder,
        args.tasks,
        args.levels,
        args.n,
        args.seed,
        vsp_folder=args.vsp,
        options=options,
        batch_size=args.batch_size,
    )
    atomic_write_json(
        args.out,
        {
            "schema": 1,
            "checkpoint": Path(args.checkpoint).as_posix(),
            "method": reasoner.method.name,
            "decoding": "greedy",
            "options": {
                name: {key: value for key, value in tasks.own(name, options).items() if key not in TRACE_OPTIONS}
                for name in args.tasks
            },
            "seed": args.seed,
            "seconds": round(time.time() - start, 1),
            "results": rows,
        },
    )
    console.print(results_table(rows))
    console.print(f"Results written to {args.out}")


if __name__ == "__main__":
    main()
