"""Which tasks need their sketches? What eval.task_audit found, as Markdown and drawn.

python paper_figs/needed.py [FILE.json] [--out FILE.png]
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from figure import asked


def share(found: dict | None) -> str:
    return f"{found['value']:.2f} ({found['low']:.2f}-{found['high']:.2f})" if found else ""


def verdict(result: dict) -> str:
    """The reasons against, or yes and at which levels alone something speaks against it."""
    if not result["needed"]:
        return f"no: {'; '.join(result['reasons'])}"
    but = [
        f"level {row['level']}: {reason}"
        for row in result["rows"]
        if row["level"] != "all"
        for reason in row["reasons"]
    ]
    return f"yes, but {'; '.join(but)}" if but else "yes"


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
        question, (first, last) = row["question"], (row["glance"].get(which, {}) for which in ("first", "last"))
        best = max(question["by_question"], question["by_words"], key=lambda found: found["value"])
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
    """What a glance reads of the first and the last sketch, level by level, and by the moves between sketches."""
    results = [r for r in results if any(row["glance"] for row in r["rows"])]
    columns = min(5, len(results))
    lines = -(-len(results) // columns)
    sheet, axes = plt.subplots(lines, columns, figsize=(1 + 2.4 * columns, 1 + 2.2 * lines), sharey=True, squeeze=False)
    for axis, result in zip(axes.flat, results, strict=False):
        rows = [row for row in result["rows"] if row["level"] != "all" and row["glance"]]
        for which, colour in (("first", "#4c72b0"), ("last", "#dd8452")):
            read = [row["glance"][which]["read"] for row in rows]
            axis.errorbar(
                [row["level"] for row in rows],
                [r["value"] for r in read],
                [[r["value"] - r["low"] for r in read], [r["high"] - r["value"] for r in read]],
                color=colour,
                marker="o",
                markersize=4,
                capsize=2,
                label=f"{which} sketch",
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
    sheet.supxlabel("level; dotted: the first sketch after so many moves", fontsize=9)
    sheet.supylabel("sketches read at a glance", fontsize=9)
    sheet.tight_layout()
    sheet.savefig(file, dpi=110)


if __name__ == "__main__":
    (found,), out = asked(__doc__, "needed", "data/needed.json")
    print(table(found["results"]))
    draw(found["results"], out)
