"""Accuracy of a checkpoint on held-out items and on the real benchmark.

    python -m eval.run CHECKPOINT --tasks frozenlake_plan --levels 3,4,5,6 --n 200 --seed 1 [--vsp DIR] --out FILE.json

``--n`` counts items per level, all different: where a level has fewer, all it has are used. Beside each accuracy stand
what no look at the holes scores (``hole_blind``) and the best fixed answer (``constant``): success without them says
little.
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

from .statistics import wilson

console = Console(soft_wrap=True)
ON_THE_WAY = ("chunk", "omit_state_p", "control")  # options of tasks that items are the same under


def rows(results: list[Result], task: str, level, split: str) -> list[dict]:
    """One row a measure: value with its Wilson interval (fractional measures: the interval of their mean)."""
    out = []
    measures = {n: [r.scores[n] for r in results] for n in results[0].scores}
    sketches = [s for r in results for s in r.sketches]
    measures |= {
        f"sketch_{n}": [float(s[n]) for s in sketches] for n in ("valid", "equal", "legal", "gold") if sketches
    }
    for name, values in measures.items():
        found = wilson(sum(values), len(values))
        out.append(
            {
                "task": task,
                "level": level,
                "split": split,
                "n": len(values),
                "metric": name,
                "value": round(found.estimate, 4),
                "low": round(found.low, 4),
                "high": round(found.high, 4),
            }
        )
    spans = [r.rollout.spans_of(r.row) for r in results]
    costs = {
        "sketches": sum(map(len, spans)),
        "latents": sum(span.length for its in spans for span in its),
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


def baselines(task, items, train_items, name: str, level, split: str) -> list[dict]:
    """What plans score that do not look at the picture, or not at its holes."""
    if not name.startswith("frozenlake"):
        return []
    constant, _ = vsp.constant_plan(train_items, longest=20)
    scored = {
        "constant": [task.score(f"\\boxed{{{constant}}}", i.meta)["success"] for i in items],
        "hole_blind": [task.score(f"\\boxed{{{vsp.hole_blind(i)}}}", i.meta)["success"] for i in items],
    }
    out = []
    for metric, values in scored.items():
        found = wilson(sum(values), len(values))
        out.append(
            {
                "task": name,
                "level": level,
                "split": split,
                "n": len(values),
                "metric": metric,
                "value": round(found.estimate, 4),
                "low": round(found.low, 4),
                "high": round(found.high, 4),
            }
        )
    return out


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
    say=console.print,
) -> tuple[list[dict], list[Result]]:
    """All result rows, per level and over all levels, and the decoded items.

    Raises:
        ValueError, FileNotFoundError: an unknown task or level, or a benchmark that is not there; before decoding.
    """
    mode, found, everything = methods.load(reasoner.method.name).MODE, [], []
    own = {name: tasks.own(name, options or {}) for name in names}
    made = {
        (name, level, split): tasks.make(name, split=split, seed=seed, level=level, **own[name])
        for name in names
        for level in [*levels, tuple(levels)]
        for split in ("test", "train")
    }
    benchmark = list(vsp.plan_items(vsp_folder, levels)) if vsp_folder else []

    def measure(task, items, train_items, name, level, split):
        results = decode(
            reasoner, decoder, task, items, mode, batch_size=batch_size, progress=f"{name} {split} level {level}"
        )
        found.extend(rows(results, name, level, split) + baselines(task, items, train_items, name, level, split))
        return results

    for name in names:
        pooled = []
        for level in levels:
            held_out, train = made[name, level, "test"], made[name, level, "train"]
            items = distinct_items(held_out, n)
            if len(items) < n:
                say(f"{name}, level {level}: {len(items)} different held-out items are all there are")
            pooled += measure(held_out, items, [train[i] for i in range(300)], name, level, "test")
        if len(levels) > 1:
            label = f"{min(levels)}-{max(levels)}"
            found.extend(rows(pooled, name, label, "test"))
            train = made[name, tuple(levels), "train"]
            found.extend(
                baselines(held_out, [r.item for r in pooled], [train[i] for i in range(500)], name, label, "test")
            )
        everything += pooled
    if benchmark:
        everything += _benchmark(measure, found, benchmark, levels, seed)
    return found, everything


def _benchmark(measure, found, items, levels, seed) -> list[Result]:
    task = tasks.make("frozenlake_plan", split="test", seed=seed, level=tuple(levels), dist="vsp")
    train = tasks.make("frozenlake_plan", split="train", seed=seed, level=tuple(levels), dist="vsp")
    train_items, pooled = [train[i] for i in range(500)], []
    for level in sorted({i.level for i in items}):
        pooled += measure(task, [i for i in items if i.level == level], train_items, "frozenlake_plan", level, "vsp")
    label = f"{min(levels)}-{max(levels)}"
    found.extend(rows(pooled, "frozenlake_plan", label, "vsp"))
    found.extend(baselines(task, [r.item for r in pooled], train_items, "frozenlake_plan", label, "vsp"))
    return pooled


SHOWN = {
    "accuracy": "accuracy",
    "success": "success",
    "exact": "shortest",
    "sketch_equal": "sketch right",
    "constant": "best constant",
    "hole_blind": "blind to holes",
}


def table(found: list[dict]) -> Table:
    """The measures people compare, one line a set of items; the rest is in the JSON."""
    sets: dict[tuple, dict] = {}
    for r in found:
        sets.setdefault((r["task"], r["split"], str(r["level"])), {})[r["metric"]] = r
    tasks_named = sorted({task for task, *_ in sets})
    shown = Table(title=f"{', '.join(tasks_named)}: share right, 95 % Wilson interval below")
    titles = [m for m in SHOWN if any(m in measures for measures in sets.values())]
    for title in ("items", "n", *(SHOWN[m] for m in titles)):
        shown.add_column(title, justify="left" if title == "items" else "right")
    for (task, split, level), measures in sets.items():
        cells = [
            f"{m['value']:.3f}\n{m['low']:.2f}-{m['high']:.2f}" if (m := measures.get(name)) else "-" for name in titles
        ]
        n = next((m["n"] for name, m in measures.items() if name in ("success", "accuracy")), "")
        shown.add_row(f"{split} level {level}\n{task if len(tasks_named) > 1 else ''}", str(n), *cells)
    return shown


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--tasks", default="frozenlake_plan", type=lambda t: t.split(","))
    parser.add_argument("--levels", default="3,4,5,6", type=numbers)
    parser.add_argument("--n", type=at_least(1), default=200, help="items per level")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vsp", help="folder of the real benchmark (maze/task-main)")
    parser.add_argument("--batch-size", type=at_least(1), default=32)
    parser.add_argument("--out", required=True)
    with cli_errors():
        measure_to_file(parser.parse_args(argv))


def measure_to_file(given: argparse.Namespace) -> None:
    began = time.time()
    reasoner, decoder = checkpoint.load(given.checkpoint)
    options = reasoner.method.notes.get("data", {}).get("options", {})
    found, _ = evaluate(
        reasoner,
        decoder,
        given.tasks,
        given.levels,
        given.n,
        given.seed,
        vsp_folder=given.vsp,
        options=options,
        batch_size=given.batch_size,
    )
    atomic_write_json(
        given.out,
        {
            "schema": 1,
            "checkpoint": Path(given.checkpoint).as_posix(),
            "method": reasoner.method.name,
            "decoding": "greedy",
            "options": {
                name: {key: value for key, value in tasks.own(name, options).items() if key not in ON_THE_WAY}
                for name in given.tasks
            },
            "seed": given.seed,
            "seconds": round(time.time() - began, 1),
            "results": found,
        },
    )
    console.print(table(found))
    console.print(f"Written to {given.out}")


if __name__ == "__main__":
    main()
