"""The table of heads of few steps, from the JSON of train.compare_heads.

python paper_figs/heads_quick.py [FILE.json]            # prints Markdown
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import mean

from sources import read_sources

from eval.statistics import wilson

HERE = Path(__file__).parent
COLUMNS = (
    "head",
    "plans that reach the gift",
    "each seed",
    "sketches with the right board",
    "each seed",
    "error of a latent",
    "calls of the head",
    "passes of the text model",
    "ms a span",
)


def share(rows: list[dict], name: str, count: str) -> list[str]:
    """The share ``name`` of all that ``count`` counts, seeds together, with its 95 % Wilson interval; then each seed's."""
    n = sum(r[count] for r in rows)
    found = wilson(sum(round(r[name] * r[count]) for r in rows), n)
    pooled = f"{found.estimate:.3f} ({found.low:.2f}-{found.high:.2f}), n = {n}"
    return [pooled, ", ".join(f"{r[name]:.2f}" for r in rows)]


def table(report: dict) -> str:
    heads: dict[str, list[dict]] = {}
    for r in report["results"]:
        heads.setdefault(r["head"], []).append(r)
    lines = [
        [
            name,
            *share(rows, "success", "n"),
            *share(rows, "sketch_equal", "rendered_sketches"),
            f"{mean(r['drawn_error'] for r in rows):.3f}",
            str(rows[0]["network_calls"]),
            str(rows[0]["backbone_passes"]),
            f"{min(r['span_ms'] for r in rows):.1f}",
        ]
        for name, rows in heads.items()
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (COLUMNS, ["---"] * len(COLUMNS), *lines))


if __name__ == "__main__":
    files = [Path(file) for file in sys.argv[1:]] or [HERE / "data" / "heads_quick.json"]
    with read_sources(files, "the JSON of train.compare_heads", "results") as (report,):
        print(table(report))
