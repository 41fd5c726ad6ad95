"""What learning by reward changed: each treatment of latents against the model it began with, as Markdown and drawn.

    python paper_figs/rl.py [FILE.json ...] [--out FILE.png]

FILEs are of ``python -m train.rl.compare``; those of one comparison (other seeds) are read together.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from compare import mean, pooled
from figure import asked

CURVES = {
    "reward": "reward of rollouts",
    "val/success": "held-out, greedy",
    "kl": "KL to the start",
    "completions/mean_length": "positions an answer",
    "switch/start_rate": "share that sketches",
    "probe/p3_follow": "follows a foreign sketch",
}
HELD_OUT = {"val/success": "val/accuracy"}  # what tasks with one right answer call it
SMOOTH = 5  # steps of the running mean of what a training batch says


def arms(found: list[dict]) -> dict[str, list[dict]]:
    """Arm -> its rows; starts are told apart by their names."""
    out: dict[str, list[dict]] = {}
    for file in found:
        for row in file["results"]:
            out.setdefault(row["arm"], []).append(row)
    return out


def start_of(name: str, rows: dict[str, list[dict]]) -> dict:
    """The row of the checkpoint an arm began with: its own, or that of the first arm that was trained."""
    starts = {arm.removeprefix("start of "): found[0] for arm, found in rows.items() if arm.startswith("start of ")}
    return starts.get(name) or starts[next(arm for arm in rows if not arm.startswith("start of "))]


def gain(rows: list[dict], start: dict) -> tuple[float, float, float]:
    """Mean change in right answers, item by item, with a 95 % interval over items (seeds averaged)."""
    change = np.mean([[int(x) for x in r["right"]] for r in rows], 0) - [int(x) for x in start["right"]]
    half = 1.96 * change.std(ddof=1) / len(change) ** 0.5
    return change.mean(), change.mean() - half, change.mean() + half


def share(rows: list[dict], key: str) -> str:
    value, low, high = pooled(rows, key)
    return f"{value:.3f} ({low:.2f}-{high:.2f})"


def line(name: str, rows: list[dict], key: str, change: str) -> list[str]:
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


def table(found: list[dict]) -> str:
    rows = arms(found)
    key = next(n for n, kept in next(iter(rows.values()))[0].items() if isinstance(kept, dict) and "value" in kept)
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
    lines = [line(name, kept, key, "") for name, kept in rows.items() if name.startswith("start of ")]
    trained = {name: kept for name, kept in rows.items() if not name.startswith("start of ")}
    for name, kept in sorted(trained.items(), key=lambda one: -gain(one[1], start_of(one[0], rows))[0]):
        change, low, high = gain(kept, start_of(name, rows))
        lines.append(line(f"`{name}`", kept, key, f"{change:+.3f} ({low:+.3f} to {high:+.3f})"))
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *lines))


def draw(found: list[dict], file: Path) -> None:
    """A panel a figure; a line an arm, mean over seeds."""
    rows = {name: kept for name, kept in arms(found).items() if not name.startswith("start of ")}
    sheet, axes = plt.subplots(2, 3, figsize=(12, 6))
    for axis, (tag, title) in zip(axes.flat, CURVES.items(), strict=True):
        for number, (name, kept) in enumerate(rows.items()):
            curves = [r.get("curves", {}) for r in kept]
            drawn = [np.array(c.get(tag) or c[HELD_OUT[tag]]) for c in curves if c.get(tag) or c.get(HELD_OUT.get(tag))]
            if not drawn:
                continue
            steps = min(len(d) for d in drawn)
            x, y = drawn[0][:steps, 0], np.mean([d[:steps, 1] for d in drawn], 0)
            if not tag.startswith(("val/", "probe/")) and steps > SMOOTH:
                y = np.convolve(y, np.ones(SMOOTH) / SMOOTH, "valid")
                x = x[SMOOTH - 1 :]
            axis.plot(
                x, y, color=f"C{number}", linewidth=1.2, label=name, marker="o" if len(x) < 12 else "", markersize=3
            )
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.tick_params(labelsize=8)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    sheet.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False, fontsize=9)
    sheet.tight_layout(rect=(0, 0.05, 1, 1))
    sheet.savefig(file, dpi=130)


if __name__ == "__main__":
    sources, out = asked(__doc__, "rl", "data/rl_frozenlake.json")
    print(table(sources))
    draw(sources, out)
