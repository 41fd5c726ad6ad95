"""What reward does to the sketches themselves, as Markdown, from the JSON of train.rl.compare.

python paper_figs/rl_content.py [FILE.json ...]            # prints Markdown
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import mean

from heads_quick import table
from rl import arms, gain, share, start_of
from sources import read_sources

from eval.statistics import wilson

HERE = Path(__file__).parent
COLUMNS = (
    "latents are",
    "accuracy",
    "change, paired",
    "sketches right",
    "valid",
    "error of a latent",
    "with true sketches",
    "follows another item's sketch",
    "under noise",
)
COURSE = ("run", "accuracy", "sketches right", "groups with equal rewards", "reward, first sixth", "last sixth")


def row_of(name: str, rows: list[dict], start: dict) -> list[str]:
    """One line: rows of an arm are its seeds, together."""
    probes = {key: mean(row["probes"][key]["accuracy"] for row in rows) for key in ("oracle", "noise")}
    change = "" if rows[0] is start else "{:+.3f} ({:+.3f} to {:+.3f})".format(*gain(rows, start))
    return [
        name,
        share(rows, "accuracy"),
        change,
        share_of_sketches(rows, "sketch_gold"),
        share_of_sketches(rows, "sketch_valid"),
        f"{mean(row['health']['latent_error'] for row in rows):.3f}",
        f"{probes['oracle']:.2f}",
        f"{mean(row['probes']['foreign']['follow_rate'] for row in rows):.2f}",
        f"{probes['noise']:.2f}",
    ]


def share_of_sketches(rows: list[dict], name: str) -> str:
    """The share of all rendered sketches, seeds together, with its 95 % Wilson interval."""
    n = sum(row["sketches"] for row in rows)
    found = wilson(sum(round(row[name]["value"] * row["sketches"]) for row in rows), n)
    return f"{found.estimate:.3f} ({found.low:.2f}-{found.high:.2f})"


def lines_of(reports: list[dict]) -> list[list[str]]:
    """The lines of all arms whose answers sketch."""
    found = arms(reports)
    lines = []
    for name, rows in found.items():
        start = rows[0] if name.startswith("start of ") else start_of(name, found)
        if "sketch_gold" in rows[0]:
            lines.append(row_of("start" if rows[0] is start else f"`{name}`", rows, start))
    return lines


def course_of(report: dict) -> list[list[str]]:
    """How each run went: its batches, the share of groups whose rollouts all earn the same, and the mean reward of its first
    and of its last sixth."""
    lines = []
    for row in report["results"]:
        if not row.get("curves"):
            continue  # a start
        equal, reward = ([value for _, value in row["curves"][name]] for name in ("frac_reward_zero_std", "reward"))
        sixth = max(len(reward) // 6, 1)
        lines.append(
            [
                f"`{row['arm']}`, {len(reward)} batches, seed {row['seed']}",
                share([row], "accuracy"),
                f"{row['sketch_gold']['value']:.3f}" if "sketch_gold" in row else "",
                f"{mean(equal):.2f}",
                f"{mean(reward[:sixth]):.3f}",
                f"{mean(reward[-sixth:]):.3f}",
            ]
        )
    return lines


if __name__ == "__main__":
    files = [Path(file) for file in sys.argv[1:]] or [
        HERE / "data" / name for name in ("rl_content.json", "rl_content_long.json")
    ]
    with read_sources(files, "the JSON of train.rl.compare", "results") as reports:
        print(table(COLUMNS, lines_of(reports[:1])))
        print()
        print(table(COURSE, [line for report in reports for line in course_of(report)]))
