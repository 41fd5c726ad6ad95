"""The tables of heads of few steps, from the JSON of train.compare_heads: what they draw, and what a span costs.

python paper_figs/heads_quick.py [FILE.json [TIMES.json]]            # prints Markdown
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import mean

from sources import read_sources

from eval.statistics import wilson

HERE = Path(__file__).parent


def share(rows: list[dict], name: str, count: str) -> str:
    """The share ``name`` of all that ``count`` counts, seeds together, with its 95 % Wilson interval."""
    n = sum(r[count] for r in rows)
    found = wilson(sum(round(r[name] * r[count]) for r in rows), n)
    return f"{found.estimate:.3f} ({found.low:.2f}-{found.high:.2f}), n = {n}"


def rows_of_heads(report: dict) -> dict[str, list[dict]]:
    heads: dict[str, list[dict]] = {}
    for r in report["results"]:
        heads.setdefault(r["head"], []).append(r)
    return heads


def qualities(report: dict) -> str:
    columns = ("head", "plans that reach the gift", "sketches with the right board", "error of a latent")
    lines = [
        [
            name,
            share(rows, "success", "n"),
            share(rows, "sketch_equal", "rendered_sketches"),
            f"{mean(r['drawn_error'] for r in rows):.3f}",
        ]
        for name, rows in rows_of_heads(report).items()
    ]
    return table(columns, lines)


def costs(report: dict) -> str:
    columns = ("head", "calls of the head", "passes of the text model", "CPU ms a span")
    names = ("network_calls", "backbone_passes", "span_cpu_ms")
    lines = [[head, *(str(rows[0][name]) for name in names)] for head, rows in rows_of_heads(report).items()]
    return table(columns, lines)


def table(columns: tuple[str, ...], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *lines))


if __name__ == "__main__":
    default = [HERE / "data" / "heads_quick.json", HERE / "data" / "heads_quick_times.json"]
    files = [Path(file) for file in sys.argv[1:]] or default
    with read_sources(files, "the JSON of train.compare_heads", "results") as reports:
        print(qualities(reports[0]), costs(reports[-1]), sep="\n\n")
