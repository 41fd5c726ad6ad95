"""The tables of docs/results/frozenlake_tiny.md and frozenlake_tiny_probes.md, from the JSON files of a checkpoint.

python paper_figs/results.py [FOLDER]            # prints Markdown

FOLDER has eval.json and probe.json of eval.run and eval.probe, and those of its controls in controls/.
"""

from __future__ import annotations

import sys
from pathlib import Path

from latent_reason.errors import cli_errors
from latent_reason.json_files import read_json

FOLDER = Path(__file__).parent.parent / "checkpoints" / "frozenlake-tiny"
#: file -> name, of the published checkpoint
ARMS = {
    "eval.json": "modal_mixed, flow head (published)",
    "controls/mlp.json": "modal_mixed, regression head",
    "controls/blank.json": "blank",
    "controls/text_cot.json": "text_cot",
    "controls/direct.json": "direct",
}
COLUMNS = (("test", "3-6"), ("test", "7"), ("test", "8"), ("vsp", "3-6"))
METRICS = (("success", "success"), ("exact", "shortest plan"), ("sketch_equal", "sketch right"))


def cell(report: dict, split: str, level: str, metric: str) -> str:
    row = next(
        (r for r in report["results"] if (r["split"], str(r["level"]), r["metric"]) == (split, level, metric)), None
    )
    return "-" if row is None else f"{row['value']:.3f} ({row['low']:.2f}-{row['high']:.2f})"


def arms_of(folder: Path) -> dict[str, str]:
    """file -> name of each evaluation in a folder: the checkpoint by its method, controls by their file."""
    if folder.resolve() == FOLDER.resolve():
        return ARMS
    controls = [path for path in sorted(folder.glob("controls/*.json")) if not path.stem.endswith("-larger")]
    names = {f"controls/{path.name}": path.stem for path in controls if not path.stem.startswith("probe")}
    return {"eval.json": read_json(folder / "eval.json", "the JSON of eval.run", ("method",))["method"]} | names


def read(folder: Path, file: str) -> dict:
    """An evaluation, merged with the separate file of larger boards (``-larger``) if it exists."""
    report = read_json(folder / file, "the JSON of eval.run", ("results",))
    larger = folder / file.replace(".json", "-larger.json")
    if larger.is_file():
        report["results"] += read_json(larger, "the JSON of eval.run", ("results",))["results"]
    return report


def results(folder: Path) -> str:
    lines = [
        "| method | measure | "
        + " | ".join(f"{'generated' if s == 'test' else 'VSP sample'} L{n}" for s, n in COLUMNS)
        + " |",
        "|---" * (2 + len(COLUMNS)) + "|",
    ]
    arms = [(name, read(folder, file)) for file, name in arms_of(folder).items()]
    for name, report in arms:
        for metric, title in METRICS:
            cells = [cell(report, split, level, metric) for split, level in COLUMNS]
            if set(cells) != {"-"}:
                lines.append(f"| {name} | {title} | " + " | ".join(cells) + " |")
    for metric, title in (("constant", "best constant plan"), ("hole_blind", "plan blind to holes")):
        cells = [cell(arms[0][1], split, level, metric) for split, level in COLUMNS]
        lines.append(f"| {title} | success | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def probes(folder: Path) -> str:
    report = read_json(folder / "probe.json", "the JSON of eval.probe", ("n", "levels", "seed", "probes"))
    lines = [
        f"n = {report['n']} items with a sketch, levels {report['levels']}, seed {report['seed']}",
        "",
        "| latents are | success | loss, paired 95 % interval | answers changed | follows a sketch (by chance) |",
        "|---|---|---|---|---|",
    ]
    for name, r in report["probes"].items():
        d = r.get("difference")
        loss = f"{d['value']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f})" if d else ""
        follow = f"{r['follow_rate']:.2f} ({r['follow_by_chance']:.2f})" if r.get("follow_n") else ""
        lines.append(
            f"| {name.replace('_', ' ')} | {r['accuracy']:.3f} | {loss} | {r['flip_rate'] if d else ''} | {follow} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    with cli_errors():
        print(results(folder), "\n", probes(folder), sep="\n")
