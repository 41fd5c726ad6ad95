"""Raw and slot-centered targets: success, loss under foreign latents, and collapse of latents.

python paper_figs/centring.py [FILE.json] [--out FILE.png]
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from figure import figure_of

PANELS = {
    "success": lambda r: r["success"]["value"],
    "loss under foreign latents": lambda r: r["probes"]["foreign"]["difference"]["value"],
    "follows a foreign sketch, above chance": lambda r: (
        (r["probes"]["foreign"].get("follow_rate") or 0) - (r["probes"]["foreign"].get("follow_by_chance") or 0)
    ),
    "cosine of different items' latents": lambda r: r["health"]["latent_cosine"],
}
COLORS = {"raw": "#c8541c", "centred": "#1d4e89"}


def draw(report: dict, file: Path) -> None:
    """One panel per metric: a dot per seed, a bar at the mean."""
    names = list(dict.fromkeys(r["arm"].split()[0] for r in report["results"]))
    figure, axes = plt.subplots(1, len(PANELS), figsize=(14, 4), sharey=True)
    for axis, (title, value) in zip(axes, PANELS.items(), strict=True):
        for at, name in enumerate(names):
            for shift, kind in ((-0.17, "centred"), (0.17, "raw")):
                values = [value(r) for r in report["results"] if r["arm"] == f"{name} {kind}"]
                if values:
                    axis.barh(
                        at + shift,
                        sum(values) / len(values),
                        0.3,
                        color=COLORS[kind],
                        alpha=0.35,
                        label=kind if at == 0 else None,
                    )
                    axis.plot(values, [at + shift] * len(values), "o", color=COLORS[kind], markersize=5)
        axis.set_title(title, fontsize=10)
        axis.axvline(0, color="#999", linewidth=0.8)
        axis.set_xlim(min(0, axis.get_xlim()[0]), 1)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    axes[0].get_figure().legend(
        *axes[0].get_legend_handles_labels(),
        ncols=2,
        fontsize=9,
        frameon=False,
        title="targets",
        loc="upper center",
        bbox_to_anchor=(0.5, 0.14),
    )
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    with figure_of(__doc__, "centring", "data/centring.json", "the JSON of train.compare", "results") as (
        (report,),
        out,
    ):
        draw(report, out)
