"""Success as generated and with replaced latents, one group of bars per method.

python paper_figs/probes.py [FILE.json] [--out FILE.png]
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from figure import figure_of

BARS = {
    "as_generated": ("as generated", "#1d4e89"),
    "zero": ("zeros", "#9aa5b1"),
    "foreign": ("another item's", "#c8541c"),
    "oracle": ("true sketches", "#5a9a68"),
}


def draw(report: dict, file: Path) -> None:
    """A bar is the mean over seeds, a dot is one seed. Methods are sorted by the loss under foreign latents. Methods whose
    latents encode no image have no bar for true sketches."""
    arms: dict[str, list[dict]] = {}
    for row in report["results"]:
        if "probes" in row:
            arms.setdefault(row["arm"], []).append({name: p["accuracy"] for name, p in row["probes"].items()})

    def loss(name: str) -> float:
        return sum(seed["as_generated"] - seed["foreign"] for seed in arms[name]) / len(arms[name])

    names = sorted(arms, key=loss, reverse=True)
    figure, axis = plt.subplots(figsize=(8, 0.55 * len(names) + 1.6))
    for shift, (probe, (label, color)) in zip((-0.3, -0.1, 0.1, 0.3), BARS.items(), strict=True):
        for at, name in enumerate(names):
            values = [seed[probe] for seed in arms[name] if probe in seed]
            if values:
                axis.barh(
                    at + shift,
                    sum(values) / len(values),
                    0.18,
                    color=color,
                    alpha=0.75,
                    label=label if at == 0 else None,
                )
                axis.plot(values, [at + shift] * len(values), ".", color="black", markersize=3)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel(
        f"right answers on items that need a sketch; {report['steps']} steps of batch "
        f"{report['batch_size']}, levels {', '.join(map(str, report['levels']))}",
        fontsize=9,
    )
    axis.legend(ncols=4, fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.45, 1.0))
    figure.tight_layout()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    with figure_of(
        __doc__, "probes", "data/compare.json", "the JSON of train.compare", "steps", "batch_size", "levels", "results"
    ) as ((report,), out):
        draw(report, out)
