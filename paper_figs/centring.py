"""Raw and slot-centered targets: success, loss under foreign latents, and collapse of latents.

python paper_figs/centring.py [FILE.json] [--out FILE.pdf]

The arms are in pairs, which are named "NAME centred" and "NAME raw".
"""

from __future__ import annotations

from pathlib import Path

from figure import figure_of
from style import BLUE, ORANGE, PAGE, add_legend, make_figure, save

PANELS = {
    "success": lambda r: r["success"]["value"],
    "loss under foreign latents": lambda r: r["probes"]["foreign"]["difference"]["value"],
    "follows a foreign\nsketch, above chance": lambda r: (
        (r["probes"]["foreign"].get("follow_rate") or 0) - (r["probes"]["foreign"].get("follow_by_chance") or 0)
    ),
    "cosine of different\nitems' latents": lambda r: r["health"]["latent_cosine"],
}
KINDS = {"centred": (-0.17, BLUE, "o"), "raw": (0.17, ORANGE, "s")}


def draw(report: dict, file: Path) -> None:
    """One panel per metric: a dot per seed, a bar at the mean."""
    pairs = [r["arm"].rpartition(" ") for r in report["results"] if r["arm"].rpartition(" ")[2] in KINDS]
    names = list(dict.fromkeys(name for name, *_ in pairs))
    if not names:
        raise ValueError("no arm is named 'NAME centred' or 'NAME raw'")
    figure, axes = make_figure(PAGE, 0.6 + 0.36 * len(names), 1, len(PANELS), sharey=True)
    for axis, (title, value) in zip(axes[0], PANELS.items(), strict=True):
        for at, name in enumerate(names):
            for kind, (shift, color, marker) in KINDS.items():
                values = [value(r) for r in report["results"] if r["arm"] == f"{name} {kind}"]
                if values:
                    mean = sum(values) / len(values)
                    axis.barh(at + shift, mean, 0.3, color=color, alpha=0.35, label=f"{kind} targets")
                    axis.plot(values, [at + shift] * len(values), marker, color=color, mec="white", mew=0.4)
        axis.set_title(title)
        axis.axvline(0, color="#999999", linewidth=0.6)
        axis.set_xlim(min(-0.02, axis.get_xlim()[0]), 1.03)
        axis.set_xticks([0, 0.5, 1])
    axes[0][0].set_yticks(range(len(names)), names)
    axes[0][0].invert_yaxis()
    add_legend(figure, axes, 2, "lower")
    save(figure, file)


if __name__ == "__main__":
    with figure_of(__doc__, "centring", "data/centring.json", "the JSON of train.compare", "results") as (
        (report,),
        out,
    ):
        draw(report, out)
