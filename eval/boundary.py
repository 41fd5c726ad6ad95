"""Boundary report of dual tuning: at which levels does sketching help? One model answers directly, reasons in text or
reasons with sketches, as its prompt asks. (Dual Tuning, from a secondary source; the third arm and the labels are ours.)

    python -m train.sft --config train/recipes/dual_frozenlake.yaml --init_from START --run_name dual
    python -m eval.boundary checkpoints/dual/model --base START --out FILE.json [--levels 3,4] [--n 200]

The report has, per level: the accuracy of each arm, its gain over the best arm of the model before tuning (``--base``),
the gaps between arms on the same items, and a label: the most expensive arm that is significantly better, after Holm's
correction over the six tests of a level. A label needs 50 items a level.
"""

from __future__ import annotations

import argparse

from latent_reason.cli.arguments import add_output
from latent_reason.errors import at_least, cli_errors, numbers
from latent_reason.values import Seed, argument


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.boundary", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--base", required=True, help="the checkpoint before tuning")
    add_output(parser)
    parser.add_argument("--levels", type=numbers, help="such as 3,4; default: the training levels of the checkpoint")
    parser.add_argument("--n", type=at_least(2), default=200, help="items per level")
    parser.add_argument("--seed", type=argument(Seed), default=1)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from latent_reason import checkpoint
from latent_reason.checkpoint.training_data import TrainingData, make_task
from latent_reason.decoding.items import Result, decode, distinct_items, main_score
from latent_reason.files import atomic_write_json
from latent_reason.outputs import check_output
from latent_reason.tasks import Item, Task

from .metrics import difference, share
from .statistics import ALPHA, LEAST_N, holm

console = Console(soft_wrap=True)
ARMS = {"direct": "direct", "text": "text", "sketch": "mixed"}  # arm -> mode of its prompt


def decode_arm(reasoner, task: Task, items: Sequence[Item], arm: str) -> list[Result]:
    """Results with the prompt of an arm. Only the arm "sketch" may open spans."""
    return decode(
        reasoner,
        None,
        task,
        items,
        ARMS[arm],
        progress=f"level {task.levels[0]}, {arm}",
        latent_mode="learned" if arm == "sketch" else "off",
    )


def level_report(reasoner, base, task: Task, items: Sequence[Item]) -> dict:
    """One level of the report: ``gain`` against the best arm of ``base``, ``gap`` between two arms of the tuned model.
    Both are paired differences with 95 % intervals."""
    base_results = [decode_arm(base, task, items, arm) for arm in ARMS if arm != "sketch" or base.can_sketch]
    key = main_score(base_results[0])
    best = max(base_results, key=lambda results: sum(r.scores[key] for r in results))
    tuned_results = {arm: decode_arm(reasoner, task, items, arm) for arm in ARMS}
    report = {
        "n": len(items),
        "base": share([r.scores[key] for r in best]),
        "accuracy": {arm: share([r.scores[key] for r in results]) for arm, results in tuned_results.items()},
        "sketched": round(sum(bool(r.latents) for r in tuned_results["sketch"]) / len(items), 4),
        "gain": {arm: difference(results, best, key) for arm, results in tuned_results.items()},
        "gap": {
            f"{first}-{second}": difference(tuned_results[first], tuned_results[second], key)
            for first, second in (("sketch", "direct"), ("sketch", "text"), ("text", "direct"))
        },
    }
    tests = [*report["gain"].values(), *report["gap"].values()]
    for test, p in zip(tests, holm([test["p"] for test in tests]), strict=True):
        test["holm_p"] = round(float(p), 5)
    return report | {"label": best_arm(report)}


def best_arm(report: dict) -> str:
    """``sketch`` or ``text`` if that arm gains and is better than every cheaper arm, ``direct`` if it gains, else
    ``none``, all by corrected tests; "N items more" if there are too few."""
    if report["n"] < LEAST_N:
        return f"{LEAST_N - report['n']} items more"

    def is_better(test: dict) -> bool:
        return test["value"] > 0 and test["holm_p"] < ALPHA

    beats = {"sketch": ("sketch-direct", "sketch-text"), "text": ("text-direct",), "direct": ()}
    return next(
        (
            arm
            for arm, gaps in beats.items()
            if is_better(report["gain"][arm]) and all(is_better(report["gap"][gap]) for gap in gaps)
        ),
        "none",
    )


def boundary_table(levels: dict[str, dict]) -> Table:
    output = Table(title="best arm per level (95 % intervals; gaps are paired)")
    for column in ("level", "base", *ARMS, "sketch - direct", "sketch - text", "best arm"):
        output.add_column(column, justify="left" if column in ("level", "best arm") else "right")
    for name, report in levels.items():
        gaps = [report["gap"][g] for g in ("sketch-direct", "sketch-text")]
        output.add_row(
            name,
            f"{report['base']['value']:.2f}",
            *(f"{report['accuracy'][a]['value']:.2f}" for a in ARMS),
            *(f"{g['value']:+.2f}\n{g['low']:+.2f} to {g['high']:+.2f}" for g in gaps),
            report["label"],
        )
    return output


def main(argv: list[str] | None = None) -> None:
    with cli_errors():
        boundary_to_file(parse_arguments(argv))


def boundary_to_file(args: argparse.Namespace) -> None:
    check_output(args.out, args.overwrite)
    reasoner, _ = checkpoint.load(args.checkpoint)
    base, _ = checkpoint.load(args.base)
    notes = reasoner.method.notes
    data = TrainingData.of(notes)
    if not data.options.get("asked"):
        raise ValueError(
            f"'{args.checkpoint}' was not trained to follow the mode in its prompt. Train it with a recipe like "
            "train/recipes/dual_frozenlake.yaml (data.pair_modes, and the task option asked)."
        )
    levels = {}
    for level in make_task(notes, args.checkpoint, levels=args.levels).levels:
        task = make_task(notes, args.checkpoint, levels=(level,), split="test", seed=args.seed)
        levels[f"level {level}"] = level_report(reasoner, base, task, distinct_items(task, args.n))
    atomic_write_json(
        args.out,
        {
            "schema": 1,
            "command": f"python -m eval.boundary {Path(args.checkpoint).as_posix()} --base "
            f"{Path(args.base).as_posix()} --n {args.n} --seed {args.seed}",
            "task": data.task,
            "seed": args.seed,
            "levels": levels,
        },
    )
    console.print(boundary_table(levels))
    if few := [name for name, report in levels.items() if report["n"] < LEAST_N]:
        console.print(
            f"No best arm for {', '.join(few)}: {LEAST_N} items a level are needed. Give --n {LEAST_N} or more."
        )
    console.print(f"Results written to {args.out}")


if __name__ == "__main__":
    main()
