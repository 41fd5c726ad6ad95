"""Where is sketching worth it? The boundary of dual tuning: three arms of one model, level by level.

python paper_figs/boundary.py [FILE.json ...] [--out FILE.png]
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from figure import asked

COLOURS = {"base": "#bbbbbb", "direct": "#5a9a68", "text": "#c8541c", "sketch": "#1d4e89"}


def draw(reports: list[dict], file: Path) -> None:
    """One panel a task: accuracy of each arm with its 95 % interval; under each level the arm that is worth it."""
    figure, axes = plt.subplots(1, len(reports), figsize=(1 + 4 * len(reports), 3.6), sharey=True, squeeze=False)
    for axis, report in zip(axes[0], reports, strict=True):
        levels = list(report["levels"].items())
        for shift, (arm, colour) in zip((-0.3, -0.1, 0.1, 0.3), COLOURS.items(), strict=True):
            bars = [found["base"] if arm == "base" else found["accuracy"][arm] for _, found in levels]
            around = [[b["value"] - b["low"] for b in bars], [b["high"] - b["value"] for b in bars]]
            axis.bar(
                [i + shift for i in range(len(bars))],
                [b["value"] for b in bars],
                0.19,
                yerr=around,
                color=colour,
                label="best before tuning" if arm == "base" else arm,
                error_kw={"linewidth": 0.8},
            )
        ticks = [f"{name}, n = {found['n']}\nworth it: {found['label']}" for name, found in levels]
        axis.set_xticks(range(len(levels)), ticks, fontsize=8)
        axis.set_title(report["task"], fontsize=9)
        axis.set_ylim(0, 1.02)
    axes[0][0].set_ylabel("right answers")
    axes[0][0].legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    reports, out = asked(__doc__, "boundary", "data/boundary.json")
    draw(reports, out)
