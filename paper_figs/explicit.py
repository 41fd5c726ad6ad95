"""Explicit thinking beside latents: accuracy and cost of every arm of train.compare, one panel row a file.

python paper_figs/explicit.py [FILE.json ...] [--out FILE.pdf]
"""

from __future__ import annotations

import numpy as np
from figure import figure_of
from rows import pooled
from style import BLUE, GREEN, GREY, ORANGE, PAGE, make_figure, save

#: color of an arm, by what it thinks in
KINDS = {"latents": BLUE, "pictures": ORANGE, "words": GREEN, "bound": GREY}
BOUNDS = ("oracle", "random", "direct", "blank")
COSTS = ("passes", "pictures")


def kind_of(arm: str, rows: list[dict]) -> str:
    """What an arm thinks in."""
    if arm in BOUNDS:
        return "bound"
    if rows[0].get("calls_per_answer") is None and rows[0]["latents_per_answer"]:
        return "latents"
    return "pictures" if max(row.get("pictures_per_answer", 0) for row in rows) > 1.5 else "words"


def draw_report(report: dict, axes: np.ndarray) -> None:
    """Accuracy with 95 % intervals at the left, mean costs of an answer beside it; the best arm is on top."""
    arms: dict[str, list[dict]] = {}
    for row in report["results"]:
        arms.setdefault(row["arm"], []).append(row)
    first = report["results"][0]
    metric = next(name for name, entry in first.items() if isinstance(entry, dict) and "value" in entry)
    order = sorted(arms, key=lambda arm: pooled(arms[arm], metric).estimate)
    for at, arm in enumerate(order):
        rows, color = arms[arm], KINDS[kind_of(arm, arms[arm])]
        share = pooled(rows, metric)
        axes[0].hlines(at, 0, 1, color="#eeeeee", linewidth=0.6, zorder=0)
        axes[0].errorbar(
            share.estimate,
            at,
            xerr=[[share.estimate - share.low], [share.high - share.estimate]],
            fmt="o",
            color=color,
            elinewidth=0.9,
        )
        for row in rows if len(rows) > 1 else ():
            axes[0].plot(row[metric]["value"], at, "|", color=color, markersize=5)
        for axis, cost in zip(axes[1:], COSTS, strict=True):
            value = np.mean([row[f"{cost}_per_answer"] for row in rows])
            axis.barh(at, value, color=color, height=0.6)
            axis.text(value, at, f" {value:.0f}" if cost == "passes" else f" {value:.1f}", va="center", fontsize=6)
    axes[0].set_yticks(range(len(order)), order)
    axes[0].set_xlim(0, 1)
    n = report["results"][0]["n"]
    seeds = len({row["seed"] for row in report["results"]})
    axes[0].set_xlabel(f"{report['task']}: {metric} (n = {n}" + (f", {seeds} seeds)" if seeds > 1 else ", one seed)"))
    for axis, cost in zip(axes[1:], COSTS, strict=True):
        axis.set_xlabel("passes an answer" if cost == "passes" else "pictures encoded")
        axis.set_yticks([])
        axis.margins(x=0.2)
        axis.set_xlim(left=0)


def draw(reports: list[dict], file) -> None:
    rows = max(len({row["arm"] for row in report["results"]}) for report in reports)
    figure, axes = make_figure(
        PAGE, len(reports) * (0.6 + 0.17 * rows), len(reports), 3, gridspec_kw={"width_ratios": [2.2, 1, 1]}
    )
    for report, panels in zip(reports, axes, strict=True):
        draw_report(report, panels)
    handles = [axes[0][0].plot([], [], "o", color=color, label=kind)[0] for kind, color in KINDS.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    save(figure, file)


if __name__ == "__main__":
    with figure_of(
        __doc__, "explicit", "data/explicit_wall_maze.json", "the JSON of train.compare", "task", "results", nargs="*"
    ) as (reports, out):
        draw(reports, out)
