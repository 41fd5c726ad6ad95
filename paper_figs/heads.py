"""Heads trained from one start: error of latents, right sketches, success.

python paper_figs/heads.py [FILE.json] [--out FILE.png]
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from figure import figure_of


def draw(report: dict, file: Path) -> None:
    results = sorted(report["results"], key=lambda r: r["drawn_error"])
    names = [f"{r['head']}  (seed {r['seed']})" for r in results]
    panels = (
        ("drawn_error", "error of a drawn latent\n(1 = the slot's mean)"),
        ("sketch_equal", "own sketches that show\nthe right board"),
        ("success", "plans that reach the gift"),
    )
    figure, axes = plt.subplots(1, len(panels), figsize=(11, 0.4 * len(names) + 1.4), sharey=True)
    for axis, (key, title) in zip(axes, panels, strict=True):
        axis.barh(names, [r.get(key, 0.0) for r in results], color="#4c72b0")
        axis.set_title(title, fontsize=9)
        axis.invert_yaxis() if axis is axes[0] else None
        for y, r in enumerate(results):
            axis.text(r.get(key, 0.0), y, f" {r.get(key, 0.0):.2f}", va="center", fontsize=8)
        axis.margins(x=0.2)
        if key == "drawn_error":
            axis.set_xscale("log")
            axis.set_xlim(0.1, 40)
            axis.axvline(1, color="grey", linewidth=0.8)
    figure.suptitle(
        f"{results[0]['steps']} steps of batch 16 from one start, n = {results[0]['n']} held-out boards of levels 3-4",
        fontsize=9,
    )
    figure.tight_layout()
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    with figure_of(__doc__, "heads", "data/heads.json", "the JSON of train.compare_heads", "results") as (
        (report,),
        out,
    ):
        draw(report, out)
