"""The boundary report of dual tuning: accuracy of three arms of one model, per level.

python paper_figs/boundary.py [FILE.json ...] [--out FILE.png]
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from figure import figure_of

COLORS = {"base": "#bbbbbb", "direct": "#5a9a68", "text": "#c8541c", "sketch": "#1d4e89"}


def draw(reports: list[dict], file: Path) -> None:
    """One panel per task: accuracy of each arm with its 95 % interval, and the best arm under each level."""
    figure, axes = plt.subplots(1, len(reports), figsize=(1 + 4 * len(reports), 3.6), sharey=True, squeeze=False)
    for axis, report in zip(axes[0], reports, strict=True):
        levels = list(report["levels"].items())
        for shift, (arm, color) in zip((-0.3, -0.1, 0.1, 0.3), COLORS.items(), strict=True):
            bars = [
                level_report["base"] if arm == "base" else level_report["accuracy"][arm] for _, level_report in levels
            ]
            errors = [[b["value"] - b["low"] for b in bars], [b["high"] - b["value"] for b in bars]]
            axis.bar(
                [i + shift for i in range(len(bars))],
                [b["value"] for b in bars],
                0.19,
                yerr=errors,
                color=color,
                label="best before tuning" if arm == "base" else arm,
                error_kw={"linewidth": 0.8},
            )
        ticks = [f"{name}, n = {level_report['n']}\nworth it: {level_report['label']}" for name, level_report in levels]
        axis.set_xticks(range(len(levels)), ticks, fontsize=8)
        axis.set_title(report["task"], fontsize=9)
        axis.set_ylim(0, 1.02)
    axes[0][0].set_ylabel("right answers")
    axes[0][0].legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    with figure_of(
        __doc__, "boundary", "data/boundary.json", "the JSON of eval.boundary", "task", "levels", nargs="*"
    ) as (reports, out):
        draw(reports, out)
