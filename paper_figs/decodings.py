"""The table of test-time methods, from the JSON files of eval.decodings.

python paper_figs/decodings.py [FILE.json ...]            # prints Markdown
"""

from __future__ import annotations

import sys
from pathlib import Path

from sources import read_sources

HERE = Path(__file__).parent
COLUMNS = ("decoding", "accuracy", "against greedy", "each seed", "tokens", "latents", "passes")


def table(report: dict) -> str:
    """Rows of both seeds together; ``each seed`` is the accuracy of one seed after the other."""
    lines = [["---"] * len(COLUMNS)]
    for row in report["results"]:
        gap = row.get("difference")
        seeds = [
            next(one["accuracy"] for one in rows if one["decoding"] == row["decoding"])
            for rows in report["by_seed"].values()
        ]
        lines.append(
            [
                f"`{row['decoding']}`",
                f"{row['accuracy']:.3f} ({row['low']:.2f}-{row['high']:.2f})",
                f"{gap['value']:+.3f} ({gap['low']:+.2f} to {gap['high']:+.2f})" if gap else "",
                ", ".join(f"{seed:.2f}" for seed in seeds),
                *(f"{row[cost]:.1f}" for cost in ("tokens", "latents", "passes")),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in (COLUMNS, *lines))


if __name__ == "__main__":
    default = [HERE / "data" / name for name in ("decodings_frozenlake.json", "decodings_wall_maze.json")]
    with read_sources([Path(name) for name in sys.argv[1:]] or default, "the JSON of eval.decodings") as reports:
        for report in reports:
            print(f"\n{report['task']}, n = {report['results'][0]['n']}\n\n{table(report)}")
