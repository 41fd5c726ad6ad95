"""The table of methods, from the JSON of train.compare.

python paper_figs/compare.py [FILE.json]            # prints Markdown
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from sources import read_sources

HERE = Path(__file__).parent


def pooled(rows: list[dict], metric: str) -> tuple[float, float, float]:
    """Mean over seeds with the 95 % Wilson interval of all items together. All seeds use the same items, so the interval
    covers items, not seeds; the table lists the seeds."""
    n, z = sum(r["n"] for r in rows), 1.96
    p = sum(r[metric]["value"] * r["n"] for r in rows) / n
    center, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return p, (center - half) / (1 + z * z / n), (center + half) / (1 + z * z / n)


def mean(rows: list[dict], *path: str) -> str:
    values = []
    for r in rows:
        for key in path:
            r = r.get(key) if isinstance(r, dict) else None
        values.append(r)
    values = [v for v in values if v is not None]
    return f"{sum(values) / len(values):.2f}" if values else ""


def milliseconds(rows: list[dict]) -> str:
    values = [1000 * r["seconds_per_answer"] for r in rows if "seconds_per_answer" in r]
    return f"{sum(values) / len(values):.0f}" if values else ""


def table(report: dict) -> str:
    arms: dict[str, list[dict]] = {}
    for r in report["results"]:
        arms.setdefault(r["arm"], []).append(r)
    key = next(name for name, entry in report["results"][0].items() if isinstance(entry, dict) and "value" in entry)
    head = [
        "arm",
        key,
        "each seed",
        "latents",
        "words",
        "probed",
        "zero",
        "foreign",
        "follows (chance)",
        "oracle",
        "ms an answer",
    ]
    lines = []
    for name, rows in sorted(arms.items(), key=lambda item: -pooled(item[1], key)[0]):
        value, low, high = pooled(rows, key)
        follows = mean(rows, "probes", "foreign", "follow_rate")
        if follows:
            follows += f" ({mean(rows, 'probes', 'foreign', 'follow_by_chance')})"
        lines.append(
            [
                f"`{name}`",
                f"{value:.3f} ({low:.2f}-{high:.2f})",
                ", ".join(f"{r[key]['value']:.2f}" for r in rows),
                mean(rows, "latents_per_answer"),
                mean(rows, "words_per_answer"),
                *(mean(rows, "probes", p, "accuracy") for p in ("as_generated", "zero", "foreign")),
                follows,
                mean(rows, "probes", "oracle", "accuracy"),
                milliseconds(rows),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *lines))


if __name__ == "__main__":
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "data" / "compare.json"
    with read_sources([file], "the JSON of train.compare", "results") as (report,):
        print(table(report))
