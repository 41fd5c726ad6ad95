"""Where is sketching worth it? The boundary report of dual tuning, with three arms: one model that answers at once,
thinks in words or thinks in sketches, as its prompt asks (Dual Tuning, second-hand; the third arm and labels are ours).

    python -m train.sft --config train/recipes/dual_frozenlake.yaml --init START --run dual
    python -m eval.boundary checkpoints/dual/model --base START --out FILE.json [--levels 3,4] [--n 200]

For each level: accuracy of each arm, what it gains over the best arm of the model before tuning (``--base``), the gaps
between arms on the same items, and a label: the dearest arm that pays.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from latent_reason import checkpoint, tasks
from latent_reason.decoding.items import Result, decode, distinct_items, main_score
from latent_reason.errors import at_least, cli_errors, numbers
from latent_reason.files import atomic_write_json
from latent_reason.tasks import Item, Task

from .metrics import difference, share

console = Console(soft_wrap=True)
ARMS = {"direct": "direct", "text": "text", "sketch": "mixed"}  # the arm and the mode its prompt asks for


def answers(reasoner, task: Task, items: Sequence[Item], arm: str) -> list[Result]:
    """Items answered as the prompt of an arm asks; spans cannot be opened but in the arm that sketches."""
    return decode(
        reasoner,
        None,
        task,
        items,
        ARMS[arm],
        progress=f"level {task.levels[0]}, {arm}",
        latent_mode="learned" if arm == "sketch" else "off",
    )


def cell(reasoner, base, task: Task, items: Sequence[Item]) -> dict:
    """One level of the report. ``gain`` is against the best arm of ``base``, ``gap`` between two arms of the tuned
    model: paired differences with 95 % intervals."""
    before = [answers(base, task, items, arm) for arm in ARMS if arm != "sketch" or base.sketches]
    key = main_score(before[0])
    best = max(before, key=lambda results: sum(r.scores[key] for r in results))
    tuned = {arm: answers(reasoner, task, items, arm) for arm in ARMS}
    found = {
        "n": len(items),
        "base": share([r.scores[key] for r in best]),
        "accuracy": {arm: share([r.scores[key] for r in results]) for arm, results in tuned.items()},
        "sketched": round(sum(bool(r.latents) for r in tuned["sketch"]) / len(items), 4),
        "gain": {arm: difference(results, best, key) for arm, results in tuned.items()},
        "gap": {
            f"{one}-{other}": difference(tuned[one], tuned[other], key)
            for one, other in (("sketch", "direct"), ("sketch", "text"), ("text", "direct"))
        },
    }
    return found | {"label": label(found)}


def label(found: dict) -> str:
    """``sketch`` or ``text`` where that arm gains and beats every cheaper one, ``direct`` where it gains, else
    ``none``: always with an interval that excludes 0."""
    beats = {"sketch": ("sketch-direct", "sketch-text"), "text": ("text-direct",), "direct": ()}
    return next(
        (
            arm
            for arm, gaps in beats.items()
            if found["gain"][arm]["low"] > 0 and all(found["gap"][g]["low"] > 0 for g in gaps)
        ),
        "none",
    )


def table(levels: dict[str, dict]) -> Table:
    shown = Table(title="which arm is worth it (95 % intervals; gaps are paired)")
    for title in ("level", "base", *ARMS, "sketch - direct", "sketch - text", "worth it"):
        shown.add_column(title, justify="left" if title in ("level", "worth it") else "right")
    for name, found in levels.items():
        gaps = [found["gap"][g] for g in ("sketch-direct", "sketch-text")]
        shown.add_row(
            name,
            f"{found['base']['value']:.2f}",
            *(f"{found['accuracy'][a]['value']:.2f}" for a in ARMS),
            *(f"{g['value']:+.2f}\n{g['low']:+.2f} to {g['high']:+.2f}" for g in gaps),
            found["label"],
        )
    return shown


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.boundary", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--base", required=True, help="the checkpoint it was tuned from")
    parser.add_argument("--out", required=True)
    parser.add_argument("--levels", type=numbers, help="such as 3,4; default: the levels it was trained on")
    parser.add_argument("--n", type=at_least(2), default=200, help="items a level")
    parser.add_argument("--seed", type=int, default=1)
    with cli_errors():
        to_file(parser.parse_args(argv))


def to_file(given: argparse.Namespace) -> None:
    reasoner, _ = checkpoint.load(given.checkpoint)
    base, _ = checkpoint.load(given.base)
    data = reasoner.method.notes.get("data", {})
    if not data.get("options", {}).get("asked"):
        raise ValueError(
            f"'{given.checkpoint}' was not tuned to do as its prompt asks. Train one with a recipe like "
            "train/recipes/dual_frozenlake.yaml (data.paired, and the task option asked)."
        )
    name, levels = tasks.check_trusted(data["task"], given.checkpoint), {}
    for level in given.levels or data["levels"]:
        task = tasks.make(name, split="test", seed=given.seed, level=level, **tasks.own(name, data["options"]))
        levels[f"level {level}"] = cell(reasoner, base, task, distinct_items(task, given.n))
    atomic_write_json(
        given.out,
        {
            "schema": 1,
            "command": f"python -m eval.boundary {Path(given.checkpoint).as_posix()} --base "
            f"{Path(given.base).as_posix()} --n {given.n} --seed {given.seed}",
            "task": data["task"],
            "seed": given.seed,
            "levels": levels,
        },
    )
    console.print(table(levels))
    console.print(f"Written to {given.out}")


if __name__ == "__main__":
    main()
