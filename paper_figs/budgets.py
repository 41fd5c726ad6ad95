"""Accuracy by latents per span, denoising steps and reasoning steps, from a dossier.

python paper_figs/budgets.py [FILE.json] [--out FILE.png]
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from figure import figure_of

PANELS = ("latents a span", "denoising steps", "answer forced after step")


def draw(report: dict, file: Path) -> None:
    """Accuracy with 95 % intervals, and milliseconds per answer below each point of a budget."""
    rows = [*report["by_budget"], *({"what": PANELS[2], "at": r["step"], **r} for r in report["by_step"])]
    figure, axes = plt.subplots(1, len(PANELS), figsize=(11, 3.4), sharey=True)
    for axis, what in zip(axes, PANELS, strict=True):
        points = sorted((r for r in rows if r["what"] == what), key=lambda r: r["at"])
        at, value = [r["at"] for r in points], [r["value"] for r in points]
        errors = [[r["value"] - r["low"] for r in points], [r["high"] - r["value"] for r in points]]
        axis.errorbar(at, value, errors, fmt="o-", color="#1d4e89", capsize=3)
        for r in points:
            if "seconds" in r:
                axis.annotate(
                    f"{1000 * r['seconds']:.0f} ms",
                    (r["at"], r["low"]),
                    fontsize=7,
                    color="#555",
                    xytext=(0, -12),
                    ha="center",
                    textcoords="offset points",
                )
        axis.set_xlabel(what)
        axis.margins(x=0.12)
        axis.set_ylim(-0.12, 1.05)
    axes[0].set_ylabel(f"right answers (n = {rows[0]['n']})")
    figure.suptitle(f"{report['about']['checkpoint']}, levels {report['about']['levels']}", fontsize=9)
    figure.tight_layout()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    with figure_of(__doc__, "budgets", "data/dossier.json", "the dossier.json of eval.dossier", "about") as (
        (report,),
        out,
    ):
        draw(report, out)
