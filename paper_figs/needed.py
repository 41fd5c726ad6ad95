"""Which tasks need their sketches? The results of eval.task_audit, as Markdown and as a figure.

python paper_figs/needed.py [FILE.json] [--out FILE.png]
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from figure import figure_of


def share(rate: dict | None) -> str:
    return f"{rate['value']:.2f} ({rate['low']:.2f}-{rate['high']:.2f})" if rate else ""


def verdict(result: dict) -> str:
    """The reasons why sketches are not needed, or "yes" with the levels that are exceptions."""
    if not result["needed"]:
        return f"no: {'; '.join(result['reasons'])}"
    exceptions = [
        f"level {row['level']}: {reason}"
        for row in result["rows"]
        if row["level"] != "all"
        for reason in row["reasons"]
    ]
    return f"yes, but {'; '.join(exceptions)}" if exceptions else "yes"


def table(results: list[dict]) -> str:
    head = [
        "task",
        "n",
        "chance",
        "question alone",
        "first sketch read",
        "constant",
        "change",
        "last sketch read",
        "needed",
    ]
    lines = []
    for result in results:
        row = result["rows"][-1]
        question, (first, last) = row["question"], (row["glance"].get(position, {}) for position in ("first", "last"))
        best = max(question["by_question"], question["by_words"], key=lambda predictor: predictor["value"])
        lines.append(
            [
                f"`{result['task']}`",
                str(question["chance"]["n"]),
                share(question["chance"]),
                share(best),
                share(first.get("read")),
                *(f"{first[k]['value']:.2f}" if k in first else "" for k in ("constant", "change")),
                share(last.get("read")),
                verdict(result),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def draw(results: list[dict], file: Path) -> None:
    """How often the first and the last sketch are predicted at a glance, per level and by moves between sketches."""
    results = [r for r in results if any(row["glance"] for row in r["rows"])]
    num_columns = min(5, len(results))
    num_rows = -(-len(results) // num_columns)
    figure, axes = plt.subplots(
        num_rows, num_columns, figsize=(1 + 2.4 * num_columns, 1 + 2.2 * num_rows), sharey=True, squeeze=False
    )
    for axis, result in zip(axes.flat, results, strict=False):
        rows = [row for row in result["rows"] if row["level"] != "all" and row["glance"]]
        for position, color in (("first", "#4c72b0"), ("last", "#dd8452")):
            rates = [row["glance"][position]["read"] for row in rows]
            axis.errorbar(
                [row["level"] for row in rows],
                [r["value"] for r in rates],
                [[r["value"] - r["low"] for r in rates], [r["high"] - r["value"] for r in rates]],
                color=color,
                marker="o",
                markersize=4,
                capsize=2,
                label=f"{position} sketch",
            )
        ends = []
        for moves in rows[0]["glance"]["first"].get("after", ()):
            after = [
                (row["level"], row["glance"]["first"]["after"][moves]["value"])
                for row in rows
                if moves in row["glance"]["first"]["after"]
            ]
            axis.plot(*zip(*after, strict=True), color="#4c72b0", linewidth=0.6, linestyle=":")
            ends.append((after[-1], moves))
        last_y = -1.0  # labels of lines that end close together are moved apart
        for (x, y), moves in sorted(ends, key=lambda end: end[0][1]):
            last_y = max(y, last_y + 0.07)
            axis.annotate(moves, (x, last_y), (3, -3), textcoords="offset points", fontsize=7, color="#4c72b0")
        axis.axhline(0.6, color="grey", linewidth=0.8, linestyle="--", label="limit")
        axis.set_xticks([row["level"] for row in rows])
        axis.set_title(result["task"], fontsize=9)
        axis.set_ylim(0, 1)
    for axis in axes.flat[len(results) :]:
        axis.axis("off")
    axes[0, 0].legend(fontsize=7)
    figure.supxlabel("level; dotted: the first sketch after so many moves", fontsize=9)
    figure.supylabel("sketches read at a glance", fontsize=9)
    figure.tight_layout()
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    with figure_of(__doc__, "needed", "data/needed.json", "the JSON of eval.task_audit", "results") as ((report,), out):
        print(table(report["results"]))
        draw(report["results"], out)
