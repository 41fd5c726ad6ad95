"""Which tasks need their sketches? The results of eval.task_audit, as Markdown and as a figure.

python paper_figs/needed.py [FILE.json] [--out FILE.pdf]
"""

from __future__ import annotations

from pathlib import Path

from figure import figure_of
from matplotlib.axes import Axes
from style import BLUE, GREY, ORANGE, PAGE, SKY, add_legend, draw_shares, make_figure, save


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
    figure, axes = make_figure(PAGE, 0.6 + 1.25 * num_rows, num_rows, num_columns, sharey=True)
    for axis, result in zip(axes.flat, results, strict=False):
        draw_task(axis, result)
    for axis in axes.flat[len(results) :]:
        axis.axis("off")
    figure.supxlabel("level", fontsize=7)
    figure.supylabel("sketches read at a glance", fontsize=7)
    add_legend(figure, axes, 4)
    save(figure, file)


def draw_task(axis: Axes, result: dict) -> None:
    rows = [row for row in result["rows"] if row["level"] != "all" and row["glance"]]
    levels = list(range(len(rows)))
    ends = []
    for moves in rows[0]["glance"]["first"].get("after", ()):
        after = [
            (at, row["glance"]["first"]["after"][moves]["value"])
            for at, row in enumerate(rows)
            if moves in row["glance"]["first"]["after"]
        ]
        label = "first sketch after 1, 2, ... moves"
        axis.plot(*zip(*after, strict=True), color=SKY, linewidth=0.8, linestyle=":", label=label)
        ends.append((after[-1][1], moves))
    last_y = -1.0  # labels of lines that end close together are moved apart
    for y, moves in sorted(ends):
        last_y = max(y, last_y + 0.13)
        axis.text(1.02, last_y, moves, transform=axis.get_yaxis_transform(), va="center", fontsize=6, color="#555555")
    for shift, (position, color, marker) in zip(
        (-0.05, 0.05), (("first", BLUE, "o"), ("last", ORANGE, "s")), strict=True
    ):
        rates = [row["glance"][position]["read"] for row in rows]
        at = [level + shift for level in levels]
        draw_shares(axis, at, rates, fmt=f"{marker}-", color=color, label=f"{position} sketch")
    axis.axhline(0.6, color=GREY, linewidth=0.6, linestyle="--", label="limit")
    axis.set_xticks(levels, [row["level"] for row in rows])
    axis.set_xlim(-0.4, levels[-1] + 0.4)
    axis.set_title(result["task"])
    axis.set_ylim(-0.03, 1)
    axis.set_yticks([0, 0.5, 1])


if __name__ == "__main__":
    with figure_of(__doc__, "needed", "data/needed.json", "the JSON of eval.task_audit", "results") as ((report,), out):
        print(table(report["results"]))
        draw(report["results"], out)
