"""Raw against slot-centred targets: success, what foreign latents cost, and whether latents collapse.

python paper_figs/centring.py [FILE.json] [--out FILE.png]
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from figure import asked

PANELS = {
    "success": lambda r: r["success"]["value"],
    "loss under foreign latents": lambda r: r["probes"]["foreign"]["difference"]["value"],
    "follows a foreign sketch, above chance": lambda r: (
        (r["probes"]["foreign"].get("follow_rate") or 0) - (r["probes"]["foreign"].get("follow_by_chance") or 0)
    ),
    "cosine of different items' latents": lambda r: r["health"]["latent_cosine"],
}
COLOURS = {"raw": "#c8541c", "centred": "#1d4e89"}


def draw(found: dict, file: Path) -> None:
    """One panel a measure: a dot a seed, a bar at their mean."""
    names = list(dict.fromkeys(r["arm"].split()[0] for r in found["results"]))
    figure, axes = plt.subplots(1, len(PANELS), figsize=(14, 4), sharey=True)
    for axis, (title, value) in zip(axes, PANELS.items(), strict=True):
        for at, name in enumerate(names):
            for shift, kind in ((-0.17, "centred"), (0.17, "raw")):
                values = [value(r) for r in found["results"] if r["arm"] == f"{name} {kind}"]
                if values:
                    axis.barh(
                        at + shift,
                        sum(values) / len(values),
                        0.3,
                        color=COLOURS[kind],
                        alpha=0.35,
                        label=kind if at == 0 else None,
                    )
                    axis.plot(values, [at + shift] * len(values), "o", color=COLOURS[kind], markersize=5)
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
    (found,), out = asked(__doc__, "centring", "data/centring.json")
    draw(found, out)
