"""The look of all figures: sizes for one and two columns, fonts, colors, and how intervals, seeds and legends are drawn.

Text has the size that it has in print: include a figure at its own width, not scaled. Colors are those of Okabe and Ito
(2008), which people with any color vision tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from latent_reason.files import atomic_write_bytes

matplotlib.use("Agg")

COLUMN, PAGE = 3.33, 6.9  # inches: a column of a paper of two, and both
BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY, BLACK, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#8A8A8A",
)
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY, BLACK, GREY)
DASHES = ("-", "--", "-.", ":")
NUM_MARKERS = 6  # on a curve
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so that figures look alike everywhere
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3,
    "errorbar.capsize": 1.5,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 220,
    "pdf.fonttype": 42,  # text stays text in PDF
    "svg.hashsalt": "latent_reason",  # the same figure is the same file
}
#: endings of figures, with the metadata that would make each file another one
ENDINGS = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}, ".png": {"Software": None}}


def make_figure(width: float, height: float, rows: int = 1, columns: int = 1, **options) -> tuple[Figure, np.ndarray]:
    """(figure of ``width`` x ``height`` inches, axes (rows, columns)). ``options`` are those of ``plt.subplots``."""
    return plt.subplots(rows, columns, figsize=(width, height), squeeze=False, **options)


def line_of(number: int) -> dict:
    """Options of a line that is told apart from those of other numbers by color and marker, then by dashes."""
    place, again = number % len(CYCLE), number // len(CYCLE) % len(DASHES)
    return {"color": CYCLE[place], "marker": MARKERS[place], "linestyle": DASHES[again]}


def draw_shares(axis: Axes, at: Sequence[float], shares: Sequence[dict], **options) -> None:
    """Values with their intervals, each a dict with value, low and high, as points. ``options`` are those of errorbar."""
    value = [share["value"] for share in shares]
    ends = [[s["value"] - s["low"] for s in shares], [s["high"] - s["value"] for s in shares]]
    axis.errorbar(at, value, ends, **{"fmt": "o", "elinewidth": 0.8} | options)


def draw_runs(axis: Axes, x: np.ndarray, runs: np.ndarray, **options) -> None:
    """Curves (seeds, steps) of one arm: their mean, and a band from the lowest to the highest seed."""
    every = max(1, len(x) // NUM_MARKERS)
    axis.plot(x, runs.mean(0), **{"markevery": every} | options)
    if len(runs) > 1:
        axis.fill_between(x, runs.min(0), runs.max(0), color=options["color"], alpha=0.15, linewidth=0)


def add_legend(figure: Figure, axes: np.ndarray, ncols: int, place: str = "upper") -> None:
    """One legend for all panels, above or below them (``place`` "upper" or "lower"), never over data."""
    labels: dict = {}
    for axis in axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            labels.setdefault(label, handle)
    figure.legend(labels.values(), labels.keys(), loc=f"outside {place} center", ncols=min(ncols, len(labels)))


def save(figure: Figure, file: Path) -> None:
    """Write a figure in the format of its ending (``ENDINGS``)."""
    data, ending = BytesIO(), file.suffix.lower()
    figure.savefig(data, format=ending[1:], metadata=ENDINGS[ending])
    plt.close(figure)
    atomic_write_bytes(file, data.getvalue())
