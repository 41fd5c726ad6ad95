"""The effect of RL: each treatment of latents compared with its start, as Markdown and as a figure.

    python paper_figs/rl.py [FILE.json ...] [--out FILE.pdf]

FILEs are of ``python -m train.rl.compare``; those of one comparison (other seeds) are read together.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from figure import figure_of
from matplotlib.ticker import MaxNLocator
from rows import mean, pooled
from style import PAGE, add_legend, draw_runs, line_of, make_figure, save

from eval.statistics import constant_interval

CURVES = {
    "reward": "reward of rollouts",
    "val/success": "held-out, greedy",
    "kl": "KL to the start",
    "completions/mean_length": "positions an answer",
    "switch/start_rate": "share that sketches",
    "probe/p3_follow": "follows a foreign sketch",
}
HELD_OUT = {"val/success": "val/accuracy"}  # the name of the metric in tasks with one right answer
SMOOTHING = 5  # steps of the running mean of training metrics


def arms(reports: list[dict]) -> dict[str, list[dict]]:
    """Arm -> its rows. The name of a start begins with "start of"."""
    out: dict[str, list[dict]] = {}
    for file in reports:
        for row in file["results"]:
            out.setdefault(row["arm"], []).append(row)
    return out


def start_of(name: str, rows: dict[str, list[dict]]) -> dict:
    """The row of the start of an arm: its own start, or that of the first trained arm."""
    starts = {
        arm.removeprefix("start of "): arm_rows[0] for arm, arm_rows in rows.items() if arm.startswith("start of ")
    }
    return starts.get(name) or starts[next(arm for arm in rows if not arm.startswith("start of "))]


def gain(rows: list[dict], start: dict) -> tuple[float, float, float]:
    """Mean paired change in accuracy (averaged over seeds) with a 95 % interval over items."""
    change = np.mean([[int(x) for x in r["right"]] for r in rows], 0) - [int(x) for x in start["right"]]
    if not np.ptp(change):
        return constant_interval(float(change[0]), len(change), -1, 1)
    half = 1.96 * change.std(ddof=1) / len(change) ** 0.5
    return change.mean(), change.mean() - half, change.mean() + half


def share(rows: list[dict], key: str) -> str:
    value, low, high = pooled(rows, key)
    return f"{value:.3f} ({low:.2f}-{high:.2f})"


def table_row(name: str, rows: list[dict], key: str, change: str) -> list[str]:
    follows = mean(rows, "probes", "foreign", "follow_rate")
    if follows:
        follows += f" ({mean(rows, 'probes', 'foreign', 'follow_by_chance')})"
    return [
        name,
        share(rows, key),
        ", ".join(f"{r[key]['value']:.2f}" for r in rows),
        change,
        mean(rows, "words_per_answer"),
        mean(rows, "latents_per_answer"),
        follows,
        *(mean(rows, "probes", p, "accuracy") for p in ("noise", "removed")),
    ]


def table(reports: list[dict]) -> str:
    rows = arms(reports)
    key = next(n for n, entry in next(iter(rows.values()))[0].items() if isinstance(entry, dict) and "value" in entry)
    head = [
        "arm",
        key,
        "each seed",
        "change, paired",
        "words",
        "latents",
        "follows a foreign sketch (chance)",
        "under noise",
        "without",
    ]
    lines = [table_row(name, arm_rows, key, "") for name, arm_rows in rows.items() if name.startswith("start of ")]
    trained = {name: arm_rows for name, arm_rows in rows.items() if not name.startswith("start of ")}
    for name, arm_rows in sorted(trained.items(), key=lambda item: -gain(item[1], start_of(item[0], rows))[0]):
        change, low, high = gain(arm_rows, start_of(name, rows))
        lines.append(table_row(f"`{name}`", arm_rows, key, f"{change:+.3f} ({low:+.3f} to {high:+.3f})"))
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *lines))


def draw(reports: list[dict], file: Path) -> None:
    """One panel per metric that was logged, one line per arm: the mean over seeds, in a band from the lowest to the
    highest."""
    rows = {name: arm_rows for name, arm_rows in arms(reports).items() if not name.startswith("start of ")}
    curves = {tag: {name: runs_of(arm_rows, tag) for name, arm_rows in rows.items()} for tag in CURVES}
    curves = {tag: found for tag, found in curves.items() if any(runs is not None for runs in found.values())}
    num_rows = -(-len(curves) // 3)
    figure, axes = make_figure(PAGE, 0.5 + 1.65 * num_rows, num_rows, min(3, len(curves)))
    for axis, (tag, found) in zip(axes.flat, curves.items(), strict=False):
        for number, (name, runs) in enumerate(found.items()):
            if runs is not None:
                draw_runs(axis, *runs, **line_of(number), label=name)
        axis.set_title(CURVES[tag])
        axis.set_xlabel("step")
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axis in axes.flat[len(curves) :]:
        axis.axis("off")
    add_legend(figure, axes, 4, "lower")
    save(figure, file)


def runs_of(rows: list[dict], tag: str) -> tuple[np.ndarray, np.ndarray] | None:
    """(steps, values (seeds, steps)) of what the seeds of an arm logged; None if none did. Training metrics are smoothed."""
    logged = [r.get("curves", {}) for r in rows]
    runs = [np.array(found) for c in logged if (found := c.get(tag) or c.get(HELD_OUT.get(tag)))]
    if not runs:
        return None
    steps = min(map(len, runs))
    x, values = runs[0][:steps, 0], np.array([run[:steps, 1] for run in runs])
    if not tag.startswith(("val/", "probe/")) and steps > SMOOTHING:
        kernel = np.ones(SMOOTHING) / SMOOTHING
        values = np.array([np.convolve(run, kernel, "valid") for run in values])
        x = x[SMOOTHING - 1 :]
    return x, values


if __name__ == "__main__":
    with figure_of(__doc__, "rl", "data/rl_frozenlake.json", "the JSON of train.rl.compare", "results", nargs="*") as (
        sources,
        out,
    ):
        print(table(sources))
        draw(sources, out)
