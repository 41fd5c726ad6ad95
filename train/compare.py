"""Compare methods: every arm of a recipe from one start, on the same items, steps and seeds. One JSON and one table.

    python -m train.compare --config train/recipes/compare_frozenlake.yaml --init_from CHECKPOINT --out FILE.json
    python -m eval.compare FILE.json --table FILE.md      # the table again, without training

The table has accuracies, paired differences to the first arm with p-values after Holm's correction, costs and probes.
--table FILE.md, FILE.csv or FILE.tex writes it too.
An arm that FILE.json holds already is not trained again. An arm that was cut off continues after its last saved state, or
after the last items that were measured, so a comparison that was stopped continues where it was. Runs are kept in
checkpoints/RUN_NAME. Arms of reinforcement learning: train.rl.compare. Not here: tuning each method by itself.
"""

from __future__ import annotations

from .config import CompareConfig, answer_help

if __name__ == "__main__":
    answer_help(CompareConfig, __doc__)  # before torch is imported

import shlex
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from eval.compare import print_comparison
from eval.comparison import metric_of, systems_of_arms
from eval.comparison_table import check_table_output
from latent_reason.errors import cli_errors

from . import sft
from .arm_measures import UNFINISHED, measured
from .batch_sizes import launched
from .checks import check_run
from .config import (
    DataConfig,
    RLCompareConfig,
    StagedConfig,
    arms_of,
    continued,
    folder_of,
    load,
    parse_command_line,
    stages_of,
)
from .results_file import Results
from .trainer import console, make_run_folder

Comparison = CompareConfig | RLCompareConfig


def num_batches(config: StagedConfig) -> float:
    """Batches of a run: of traces, or of rollouts, which may take several optimizer steps each."""
    return config.optim.max_steps / (config.rl.num_iterations if hasattr(config, "rl") else 1)


def batch_rows(config: StagedConfig) -> int:
    """Rows of a batch over all devices: traces, or rollouts."""
    if hasattr(config, "rl"):
        return config.data.global_batch_size * config.rl.num_generations
    return config.data.global_batch_size


def data_identity(data: DataConfig) -> dict:
    """The keys that decide which items there are. ``omit_state_p`` only changes their text."""
    options = {name: value for name, value in data.options.items() if name != "omit_state_p"}
    names = ("task", "levels", "items", "seed", "folder")
    return {name: getattr(data, name, None) for name in names} | {"options": options}


def check_fair(config: Comparison, arms: dict[str, StagedConfig]) -> None:
    """Raises ValueError for an arm with other items, another number of batches or rows than the comparison, or, where
    arms are supervised, another start."""
    if not arms:
        raise ValueError("nothing to compare: the recipe has no arms. Name them under 'arms:'.")
    identity = data_identity(config.data)
    for name, arm in arms.items():
        if isinstance(config, CompareConfig) and arm.init_from != config.init_from:
            raise ValueError(
                f"arm {name!r} starts from {arm.init_from!r}. Arms are compared from one start; remove init_from."
            )
        batches, rows = sum(map(num_batches, stages_of(arm))), {batch_rows(stage) for stage in stages_of(arm)}
        if batches != num_batches(config) or rows != {batch_rows(config)}:
            raise ValueError(
                f"arm {name!r} takes {batches:g} batches of {sorted(rows)} rows, the comparison "
                f"{num_batches(config):g} of {batch_rows(config)}. Arms are compared at equal batches."
            )
        differ = {
            key
            for stage in stages_of(arm)
            for key, value in data_identity(stage.data).items()
            if value != identity[key]
        }
        if differ:
            raise ValueError(
                f"arm {name!r} has other data ({', '.join(sorted(differ))}). Arms are compared on the same items."
            )


def train_arm(arm: StagedConfig, folder: Path, train: Callable) -> None:
    """Train an arm into its folder, unless an earlier call did. One that was cut off continues."""
    if (folder / "model").is_dir():
        return
    arm = replace(arm, run_name=str(folder))
    if (folder / "recipe.yaml").is_file():
        arm = continued(folder, load(folder / "recipe.yaml", type(arm)), arm)
        arm = replace(arm, resume=str(folder))
    train(arm, make_run_folder(arm))


def compare(
    config: Comparison, results: Results, train: Callable, extra_row: Callable[[Path], dict] = lambda folder: {}
) -> None:
    """Train and measure every arm with every seed. ``extra_row(folder)`` adds to the row of a trained arm."""
    began, num_measured = time.time(), 0
    for seed in config.seeds:
        for name, arm in arms_of(replace(config, seed=seed)).items():
            folder = folder_of(config.run_name) / f"{name}-{seed}"
            if results.has_row(name, seed):
                (folder / UNFINISHED).unlink(missing_ok=True)  # of a process that was killed after it wrote the row
            if not results.is_wanted(name, seed):
                continue
            seconds = (time.time() - began) / num_measured if num_measured else None
            console.rule(f"{name}: {place_of(config, results, name, seed, seconds)}")
            train_arm(arm, folder, train)
            with measured(folder, arm, config.test_items, folder / UNFINISHED) as row:
                results.add(name, seed, arm, row | extra_row(folder))
            num_measured += 1


def place_of(config: Comparison, results: Results, name: str, seed: int, seconds: float | None) -> str:
    """Where a comparison stands, such as "arm 2 of 5, seed 1 of 3, about 12 min left". ``seconds`` are those of an arm;
    None before one was measured."""
    arms = list(config.arms)
    place = f"arm {arms.index(name) + 1} of {len(arms)}, seed {config.seeds.index(seed) + 1} of {len(config.seeds)}"
    if seconds is None:
        return place
    left = seconds * sum(results.is_wanted(arm, s) for arm in arms for s in config.seeds)
    return f"{place}, about {left / 60:.0f} min left" if left > 90 else f"{place}, about {left:.0f} s left"


def print_table(config: Comparison, results: Results) -> None:
    """Print the table of all rows and write it where ``config.table`` says. The first arm of the recipe is first, or the
    start that it has in the results."""
    starts = [row["arm"] for row in results.rows if row["arm"] not in config.arms]
    systems = systems_of_arms(results.rows, [*dict.fromkeys(starts), *config.arms])
    print_comparison(systems, metric_of(results.rows), config.table and Path(config.table), console)


def check_arm(name: str, arm: StagedConfig) -> None:
    """Raises ValueError or FileNotFoundError, which name the arm, for one that could not begin."""
    try:
        check_run(arm, launched(arm))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"arm {name!r}: {error}") from None
    except ValueError as error:
        raise ValueError(f"arm {name!r}: {error}") from None


def open_comparison(config_class: type[Comparison], description: str, argv: list[str] | None):
    """(config, results) of a command line.

    Raises:
        ValueError: the comparison is not fair, has no start or output, or its output holds something else.
        OSError: the output cannot be written, or another process writes it.
    """
    argv = sys.argv[1:] if argv is None else argv
    config = parse_command_line(config_class, description, argv)
    for key in ("init_from", "out"):
        if not getattr(config, key):
            raise ValueError(f"a comparison needs --{key}; see python -m {config.command} --help.")
    if config.dry_run:
        raise ValueError("dry_run: a comparison is not planned. Plan a recipe of one arm: python -m train.plan RECIPE.")
    if config.table:
        check_table_output(config.table, config.overwrite)
    check_fair(config, arms_of(config))
    for name, arm in arms_of(config).items():
        check_arm(name, arm)
    about = {
        "schema": 1,
        "command": f"python -m {config.command} {shlex.join(argv)}",
        "steps": config.optim.max_steps,
        "batch_size": batch_rows(config),
        "items": config.data.items,
        "task": config.data.task,
        "levels": config.data.levels,
        "test_items": config.test_items,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
    }
    recipes = {(name, s): arm for s in config.seeds for name, arm in arms_of(replace(config, seed=s)).items()}
    return config, Results(config.out, about, recipes, config.only, "arm")


@cli_errors()
def main(argv: list[str] | None = None) -> None:
    config, results = open_comparison(CompareConfig, __doc__, argv)
    with closing(results):
        compare(config, results, sft.train)
        print_table(config, results)
    console.print(f"Results written to {config.out}")


if __name__ == "__main__":
    main()
