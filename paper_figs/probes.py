"""Who uses their latents? Success as generated and with latents replaced, one group of bars a method.

python paper_figs/probes.py [FILE.json] [--out FILE.png]
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from figure import asked

BARS = {
    "as_generated": ("as generated", "#1d4e89"),
    "zero": ("zeros", "#9aa5b1"),
    "foreign": ("another item's", "#c8541c"),
    "oracle": ("true sketches", "#5a9a68"),
}


def draw(found: dict, file: Path) -> None:
    """A bar is the mean over seeds, a dot one seed. Methods whose answers suffer most from foreign latents come first;
    no bar of true sketches where no picture says what the latents should have been."""
    arms: dict[str, list[dict]] = {}
    for row in found["results"]:
        if "probes" in row:
            arms.setdefault(row["arm"], []).append({name: p["accuracy"] for name, p in row["probes"].items()})

    def loss(name: str) -> float:
        return sum(seed["as_generated"] - seed["foreign"] for seed in arms[name]) / len(arms[name])

    names = sorted(arms, key=loss, reverse=True)
    figure, axis = plt.subplots(figsize=(8, 0.55 * len(names) + 1.6))
    for shift, (probe, (label, colour)) in zip((-0.3, -0.1, 0.1, 0.3), BARS.items(), strict=True):
        for at, name in enumerate(names):
            values = [seed[probe] for seed in arms[name] if probe in seed]
            if values:
                axis.barh(
                    at + shift,
                    sum(values) / len(values),
                    0.18,
                    color=colour,
                    alpha=0.75,
                    label=label if at == 0 else None,
                )
                axis.plot(values, [at + shift] * len(values), ".", color="black", markersize=3)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel(
        f"right answers on items that need a sketch; {found['steps']} steps of batch "
        f"{found['batch_size']}, levels {', '.join(map(str, found['levels']))}",
        fontsize=9,
    )
    axis.legend(ncols=4, fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.45, 1.0))
    figure.tight_layout()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    (found,), out = asked(__doc__, "probes", "data/compare.json")
    draw(found, out)
