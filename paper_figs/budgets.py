"""Accuracy by latents per span, denoising steps and reasoning steps, from a dossier.

python paper_figs/budgets.py [FILE.json] [--out FILE.pdf]
"""

from __future__ import annotations

from pathlib import Path

from figure import figure_of
from style import BLUE, PAGE, draw_shares, make_figure, save

PANELS = ("latents a span", "denoising steps", "answer forced after step")


def draw(report: dict, file: Path) -> None:
    """Accuracy with 95 % intervals, and milliseconds per answer along the top of a budget's panel."""
    rows = [*report["by_budget"], *({"what": PANELS[2], "at": r["step"], **r} for r in report["by_step"])]
    points_of = {what: sorted((r for r in rows if r["what"] == what), key=lambda r: r["at"]) for what in PANELS}
    points_of = {what: points for what, points in points_of.items() if points}
    figure, axes = make_figure(PAGE, 2.1, 1, len(points_of), sharey=True)
    for axis, (what, points) in zip(axes[0], points_of.items(), strict=True):
        draw_shares(axis, range(len(points)), points, fmt="o-", color=BLUE)
        axis.set_xticks(range(len(points)), [f"{r['at']:g}" for r in points])
        axis.set_xlim(-0.5, len(points) - 0.5)
        axis.set_ylim(-0.03, 1.19)
        axis.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axis.set_xlabel(what)
        for at, r in enumerate(points):
            if "seconds" in r:
                ms = f"{1000 * r['seconds']:.0f}" + " ms" * (at == 0)
                axis.text(at, 1.1, ms, fontsize=6, color="#555555", ha="center")
    axes[0][0].set_ylabel(f"right answers (n = {rows[0]['n']})")
    figure.suptitle(f"{report['about']['checkpoint']}, levels {report['about']['levels']}", fontsize=7)
    save(figure, file)


if __name__ == "__main__":
    with figure_of(
        __doc__, "budgets", "data/dossier.json", "the dossier.json of eval.dossier", "about", "by_budget", "by_step"
    ) as ((report,), out):
        draw(report, out)
