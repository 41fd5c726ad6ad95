"""Right answers as generated and with replaced latents, one group of bars per method.

python paper_figs/probes.py [FILE.json] [--out FILE.pdf]
"""

from __future__ import annotations

from pathlib import Path

from figure import figure_of
from style import BLUE, COLUMN, GREEN, GREY, ORANGE, add_legend, make_figure, save

BARS = {
    "as_generated": ("as generated", BLUE),
    "zero": ("zeros", GREY),
    "foreign": ("another item's", ORANGE),
    "oracle": ("true sketches", GREEN),
}


def draw(report: dict, file: Path) -> None:
    """A bar is the mean over seeds, a dot is one seed. Methods are sorted by the loss under foreign latents. Methods whose
    latents encode no image have no bar for true sketches."""
    arms: dict[str, list[dict]] = {}
    for row in report["results"]:
        if "probes" in row:
            arms.setdefault(row["arm"], []).append({name: p["accuracy"] for name, p in row["probes"].items()})
    if not arms:
        raise ValueError("no arm has probes")

    def loss(name: str) -> float:
        return sum(seed["as_generated"] - seed["foreign"] for seed in arms[name]) / len(arms[name])

    names = sorted(arms, key=loss, reverse=True)
    figure, axes = make_figure(COLUMN, 0.9 + 0.29 * len(names))
    axis = axes[0][0]
    for shift, (probe, (label, color)) in zip((-0.3, -0.1, 0.1, 0.3), BARS.items(), strict=True):
        for at, name in enumerate(names):
            values = [seed[probe] for seed in arms[name] if probe in seed]
            if values:
                axis.barh(at + shift, sum(values) / len(values), 0.18, color=color, alpha=0.8, label=label)
                axis.plot(values, [at + shift] * len(values), ".", color="black", markersize=2)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlim(0, 1)
    axis.set_xlabel(
        f"right answers on items that need a sketch\n{report['steps']} steps of batch {report['batch_size']}, levels "
        f"{', '.join(map(str, report['levels']))}"
    )
    add_legend(figure, axes, 2)
    save(figure, file)


if __name__ == "__main__":
    with figure_of(
        __doc__, "probes", "data/compare.json", "the JSON of train.compare", "steps", "batch_size", "levels", "results"
    ) as ((report,), out):
        draw(report, out)
