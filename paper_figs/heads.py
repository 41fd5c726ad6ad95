"""Heads trained from one start: error of latents, right sketches, success.

python paper_figs/heads.py [FILE.json] [--out FILE.pdf]
"""

from __future__ import annotations

from pathlib import Path

from figure import figure_of
from style import BLUE, PAGE, make_figure, save

from eval.statistics import wilson

PANELS = {
    "drawn_error": "error of a drawn latent\n(1 = the slot's mean)",
    "sketch_equal": "own sketches that\nshow the right board",
    "success": "plans that\nreach the gift",
}


def interval_of(row: dict, key: str) -> tuple[float, float] | None:
    """The 95 % Wilson interval of a share, where the file says of how many it is one."""
    n = {"success": row["n"], "sketch_equal": row.get("rendered_sketches")}.get(key)
    return tuple(wilson(row[key] * n, n)[1:]) if n else None


def draw(report: dict, file: Path) -> None:
    """A dot per seed with its interval, and its value at the right edge (the mean over seeds)."""
    heads: dict[str, list[dict]] = {}
    for row in sorted(report["results"], key=lambda r: r["drawn_error"]):
        heads.setdefault(row["head"], []).append(row)
    figure, axes = make_figure(PAGE, 0.75 + 0.17 * len(heads), 1, len(PANELS), sharey=True)
    for axis, (key, title) in zip(axes[0], PANELS.items(), strict=True):
        for at, rows in enumerate(heads.values()):
            values = [row.get(key, 0.0) for row in rows]
            for row, value in zip(rows, values, strict=True):
                if ends := interval_of(row, key):
                    axis.plot(ends, [at, at], color=BLUE, linewidth=0.8, alpha=0.6)
                axis.plot(value, at, "o", color=BLUE)
            mean = f"{sum(values) / len(values):.2f}"
            axis.text(1.02, at, mean, va="center", fontsize=6.5, transform=axis.get_yaxis_transform())
        axis.set_title(title)
        axis.grid(axis="y", color="#e4e4e4", linewidth=0.5)
        axis.set_axisbelow(True)
        if key == "drawn_error":
            axis.set_xscale("log")
            low, high = axis.get_xlim()
            axis.set_xlim(min(0.1, low), max(10, high))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.axvline(1, color="#999999", linewidth=0.6)
        else:
            axis.set_xlim(-0.02, 1 if key == "success" else None)
    axes[0][0].set_yticks(range(len(heads)), list(heads))
    axes[0][0].invert_yaxis()
    first, seeds = report["results"][0], len({row["seed"] for row in report["results"]})
    figure.suptitle(
        f"{first['steps']} steps from one start, n = {first['n']}, {seeds} seed{'s' * (seeds > 1)}", fontsize=7
    )
    save(figure, file)


if __name__ == "__main__":
    with figure_of(__doc__, "heads", "data/heads.json", "the JSON of train.compare_heads", "results") as (
        (report,),
        out,
    ):
        draw(report, out)
