"""Sketches compared with text, constants and direct answers, per task, from train.compare.

python paper_figs/worth.py [FILE.json ...]            # prints Markdown; default: data/needed_*.json
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from rows import mean, pooled
from sources import read_sources

from eval.statistics import paired_bootstrap

HERE = Path(__file__).parent


def sketch_arm(rows: dict[str, list[dict]]) -> str:
    """The arm that the others are compared with: ``modal_mixed``, or the first whose answers have latents."""
    return (
        "modal_mixed"
        if "modal_mixed" in rows
        else next(n for n, found in rows.items() if found[0]["latents_per_answer"])
    )


def gain(rows: dict[str, list[dict]], arm: str) -> str:
    """Difference in accuracy between sketches and another arm, on the same items. Items are resampled with the results
    of all seeds."""
    sketch = sketch_arm(rows)
    right = {name: {r["seed"]: [int(c) for c in r["right"]] for r in rows[name]} for name in (sketch, arm)}
    seeds = sorted(right[sketch].keys() & right[arm].keys())
    first, second = (np.concatenate([right[name][seed] for seed in seeds]) for name in (sketch, arm))
    interval = paired_bootstrap(first, second, clusters=np.tile(np.arange(len(first) // len(seeds)), len(seeds)))
    return f"{interval.estimate:+.3f} ({interval.low:+.2f} to {interval.high:+.2f})"


def table(reports: list[dict]) -> str:
    probe_columns = {
        "foreign": ("foreign", "accuracy"),
        "follows": ("foreign", "follow_rate"),
        "(by chance)": ("foreign", "follow_by_chance"),
        "oracle": ("oracle", "accuracy"),
        "copy": ("copy", "accuracy"),
        "gain recovered": ("oracle", "gain_recovered"),
    }
    head = ["task", "arm", "right", "each seed", "sketches - arm", "blind", "latents", "words", *probe_columns]
    lines = []
    for report in reports:
        rows: dict[str, list[dict]] = {}
        for r in report["results"]:
            rows.setdefault(r["arm"], []).append(r)
        key = next(name for name, entry in report["results"][0].items() if isinstance(entry, dict) and "value" in entry)
        sketch = sketch_arm(rows)
        for arm, arm_rows in rows.items():
            value, low, high = pooled(arm_rows, key)
            lines.append(
                [
                    f"`{report['task']}`" if arm == sketch else "",
                    f"`{arm}`",
                    f"{value:.3f} ({low:.2f}-{high:.2f})",
                    ", ".join(f"{r[key]['value']:.2f}" for r in arm_rows),
                    "" if arm == sketch else gain(rows, arm),
                    *(mean(arm_rows, name) for name in ("blind", "latents_per_answer", "words_per_answer")),
                    *(mean(arm_rows, "probes", *path) for path in probe_columns.values()),
                ]
            )
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *lines))


if __name__ == "__main__":
    files = [Path(file) for file in sys.argv[1:]] or sorted((HERE / "data").glob("needed_*.json"))
    with read_sources(files, "the JSON of train.compare", "task", "results") as reports:
        print(table(reports))
