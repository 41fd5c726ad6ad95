"""The boundary report of dual tuning: accuracy of three arms of one model, per level.

python paper_figs/boundary.py [FILE.json ...] [--out FILE.pdf]
"""

from __future__ import annotations

from pathlib import Path

from figure import figure_of
from style import BLUE, COLUMN, GREEN, GREY, ORANGE, PAGE, add_legend, draw_shares, make_figure, save

ARMS = {"base": (GREY, "D"), "direct": (GREEN, "o"), "text": (ORANGE, "s"), "sketch": (BLUE, "^")}


def draw(reports: list[dict], file: Path) -> None:
    """One panel per task: accuracy of each arm with its 95 % interval, and the best arm under each level."""
    width = COLUMN if len(reports) == 1 else PAGE
    figure, axes = make_figure(width, 2.3, 1, len(reports), sharey=True)
    for axis, report in zip(axes[0], reports, strict=True):
        levels = list(report["levels"].items())
        for shift, (arm, (color, marker)) in zip((-0.24, -0.08, 0.08, 0.24), ARMS.items(), strict=True):
            shares = [found["base"] if arm == "base" else found["accuracy"][arm] for _, found in levels]
            label = "best before tuning" if arm == "base" else arm
            draw_shares(axis, [i + shift for i in range(len(shares))], shares, color=color, fmt=marker, label=label)
        ticks = [f"{name}\nn = {found['n']}\nbest: {found['label']}" for name, found in levels]
        axis.set_xticks(range(len(levels)), ticks)
        axis.set_xlim(-0.5, len(levels) - 0.5)
        axis.set_title(report["task"])
        axis.set_ylim(-0.03, 1.03)
    axes[0][0].set_ylabel("right answers")
    add_legend(figure, axes, 4)
    save(figure, file)


if __name__ == "__main__":
    with figure_of(
        __doc__, "boundary", "data/boundary.json", "the JSON of eval.boundary", "task", "levels", nargs="*"
    ) as (reports, out):
        draw(reports, out)
