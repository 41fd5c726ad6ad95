"""Memory, arithmetic and hours of a recipe, for GPUs that need not be there and models that need not be downloaded.

    python -m train.plan train/recipes/qwen25vl_3b_modal_mixed.yaml --gpus 8 --memory 80
    python -m train.plan RECIPE --optim.max_steps 500 --data.global_batch_size 4 --device A100 --out plan.json

One optimizer step of the recipe runs on tensors without values: the model's own forward and backward pass, the method's
losses on the longest of 64 examples, the optimizer. What it allocates and multiplies is counted; with fsdp, on the first
of --gpus processes. Recipes of train.sft and train.rl are planned; rollouts are as long as they may be.

Computed, not measured. 1 GiB (libraries of the GPU) and 5 % of the peak (memory that the allocator cannot use) are added.
Hours are those of arithmetic at a share --mfu of the device's peak, recomputed activations included, and of reading all
weights and half the cache for each decoded position. Loading, validation and saving are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Annotated, Any

from latent_reason.cli.arguments import add_output
from latent_reason.values import Bounds, Count, Natural, Positive, argument

from .planning.devices import DEVICES


def parse_arguments(argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The arguments of the command line, and the words that are keys of the recipe."""
    parser = argparse.ArgumentParser(
        prog="python -m train.plan",
        usage="%(prog)s RECIPE [--gpus N] [--memory GIB] [options] [--KEY VALUE ...]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("--gpus", type=argument(Count), default=1, help="devices that train together")
    parser.add_argument("--memory", type=argument(Positive), default=80.0, metavar="GIB", help="of each device")
    parser.add_argument("--device", choices=DEVICES, default="H100", help="whose speed the hours are for")
    share = argument(Annotated[float, Bounds(0, 1, above=True)])
    parser.add_argument("--mfu", type=share, default=0.4, help="share of the device's peak arithmetic")
    parser.add_argument("--backbone", metavar="NAME", help="in place of the recipe's, or of its checkpoint's")
    parser.add_argument("--tokens-per-example", type=argument(Natural), default=0, help="0: as many as the data have")
    add_output(parser, "a JSON file of the figures", required=False)
    return parser.parse_known_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

from dataclasses import asdict, dataclass, fields

import torch
import transformers
from rich import box
from rich.console import Console
from rich.table import Table

from latent_reason.errors import cli_errors
from latent_reason.files import atomic_write_json
from latent_reason.outputs import check_output

from .config import RLTrainingConfig, SFTConfig, parse, stages_of
from .config.recipe_file import read_recipe
from .memory import gpu_here
from .planning.changes import change, changes_for, command_line
from .planning.estimate import GIB, estimate

WIDTH = 80
Config = SFTConfig | RLTrainingConfig


def main(argv: Sequence[str] | None = None) -> None:
    given, words = parse_arguments(argv)
    target = Target(**{field.name: getattr(given, field.name) for field in fields(Target)})
    with cli_errors():
        if given.out:
            check_output(given.out, given.overwrite)
        stages = plan_stages(read_config(given.recipe, words), target, given.recipe)
        if given.out:
            versions = {"torch": torch.__version__, "transformers": transformers.__version__}
            settings = {"computed": True, "keys": words, "recipe": given.recipe} | asdict(target) | versions
            atomic_write_json(given.out, {"schema": 1} | settings | {"stages": stages})
            print(f"Written to {given.out}")


@dataclass(frozen=True)
class Target:
    """What a plan is for: so many devices of a kind, each with so many GiB (None: unknown), at a share of their peak
    arithmetic; a backbone in place of the recipe's, and positions of an example (0: as many as the data have)."""

    gpus: int = 1
    memory: float | None = None
    device: str = "H100"
    mfu: float = 0.4
    backbone: str | None = None
    tokens_per_example: int = 0


def plan_stages(config: Config, target: Target, title: str) -> list[dict[str, Any]]:
    """The figures of every stage of a config, printed."""
    stages = [plan(stage, target) for stage in stages_of(config)]
    for number, stage in enumerate(stages, 1):
        show(stage, target, f"stage {number} of {len(stages)} of {title}" if stages[1:] else title)
    return stages


def dry_run(config: Config, gpus: int) -> None:
    """Print what a run on so many devices needs, for the GPU of this machine if it has one and the run may use it.

    Raises:
        ValueError: a stage does not fit into its memory, or could not run.
    """
    target = Target(gpus)
    if found := gpu_here(config.accelerator):
        name, memory = found
        target = Target(gpus, memory, next((known for known in DEVICES if known in name), target.device))
    stages = plan_stages(config, target, config.run_name)
    most = max(stage["needed_gib"] for stage in stages)
    if not all(stage["fits"] for stage in stages):
        raise ValueError(
            f"{most:.1f} GiB do not fit into the {target.memory:g} GiB of this GPU. See what to change above."
        )


def read_config(recipe: str, words: Sequence[str]) -> Config:
    """The config of a recipe and dotted keys. Raises ValueError as :func:`train.config.parse`."""
    values = read_recipe(recipe)
    kind = RLTrainingConfig if isinstance(values, dict) and "rl" in values else SFTConfig
    return parse(kind, ["--config", recipe, *words])


# -- figures -----------------------------------------------------------------------------------------------------------
def plan(config: Config, target: Target) -> dict[str, Any]:
    """The figures of a config; where it does not fit, with those of changes to it."""
    found = figures(config, target)
    changes: list[dict[str, Any]] = []
    if not found["fits"]:
        for most, *fewer in changes_for(config, target.gpus):
            changes += try_change(config, most, target)
            if changes and changes[-1]["keys"] == most and changes[-1]["fits"]:
                changes += [tried for keys in fewer for tried in try_change(config, keys, target)]
    return found | {"changes": changes}


def try_change(config: Config, keys: dict[str, Any], target: Target) -> list[dict[str, Any]]:
    """The figures of a config with other keys; none where keys exclude each other."""
    try:
        other = figures(change(config, keys), target)
    except ValueError:
        return []
    return [{"keys": keys} | {name: other[name] for name in ("needed_gib", "main_memory_gib", "fits", "hours")}]


def figures(config: Config, target: Target) -> dict[str, Any]:
    """The figures of one config."""
    needs = estimate(config, target.gpus, target.backbone, target.tokens_per_example)
    device, needed = DEVICES[target.device], needs.needed(target.gpus) / GIB
    return {
        "parameters": {part: {"all": a, "trained": t} for part, (a, t) in needs.parameters.items()},
        "memory_gib": in_gib(needs.memory(target.gpus)),
        "main_memory_gib": in_gib(needs.main_memory),
        "needed_gib": round(needed, 2),
        "fits": target.memory is None or needed <= target.memory,
        "step": needs.step(target.gpus),
        "flops": {phase: n * target.gpus for phase, n in needs.flops.items()},
        "seconds_per_step": round(needs.seconds(device, target.mfu), 3),
        "max_steps": config.optim.max_steps,
        "hours": round(needs.seconds(device, target.mfu) * config.optim.max_steps / 3600, 2),
    }


def in_gib(memory: dict[str, int]) -> dict[str, float]:
    return {kind: round(n / GIB, 3) for kind, n in memory.items()}


# -- output ------------------------------------------------------------------------------------------------------------
def show(found: dict[str, Any], target: Target, title: str) -> None:
    """Print the figures of a stage."""
    console = Console(width=WIDTH, highlight=False)
    console.rule(title)
    parameters, step = found["parameters"], found["step"]
    rows = [[part, f"{counts['all']:,}", f"{counts['trained']:,}"] for part, counts in parameters.items()]
    totals = [sum(counts[name] for counts in parameters.values()) for name in ("all", "trained")]
    console.print(table(["parameters", "all", "trained"], [*rows, ["together", *(f"{n:,}" for n in totals)]]))
    needed = ["with 5 % and 1 GiB for libraries", f"{found['needed_gib']:.1f}"]
    console.print(table(["memory of a GPU at the peak", "GiB"], [*rows_of(found["memory_gib"]), needed]))
    if found["main_memory_gib"]:
        console.print(table(["main memory of its process at the peak", "GiB"], rows_of(found["main_memory_gib"])))
    rows = [[name, f"{n:,}"] for name, n in step.items()]
    rows += [[f"floating-point operations, {phase}", f"{n:.3g}"] for phase, n in found["flops"].items()]
    rows += [[f"seconds on {target.gpus} x {target.device} at {target.mfu:.0%}", f"{found['seconds_per_step']:,.2f}"]]
    console.print(table(["an optimizer step of all GPUs", ""], rows))
    verdict = "fits into" if found["fits"] else "does not fit into"
    verdict = "are needed" if target.memory is None else f"{verdict} {target.memory:g} GiB"
    console.print(
        f"{found['needed_gib']:.1f} GiB {verdict}. {found['max_steps']:,} steps take {found['hours']:,.1f} hours "
        "(computed, not measured)."
    )
    if found["changes"]:
        rows = [
            [command_line(other["keys"]), f"{other['needed_gib']:.1f}", f"{other['hours']:,.1f}"]
            for other in sorted(found["changes"], key=lambda other: other["needed_gib"])
        ]
        console.print(table(["what to change instead", "GiB", "hours"], rows))


def rows_of(memory: dict[str, float]) -> list[list[str]]:
    """The rows of a table of memory, the most first."""
    return [[kind, f"{n:.2f}"] for kind, n in sorted(memory.items(), key=lambda pair: -pair[1]) if n >= 0.005]


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose first column is text and whose others are numbers."""
    made = Table(width=WIDTH, box=box.SIMPLE)
    for number, title in enumerate(titles):
        made.add_column(title, justify="right" if number else "left", overflow="fold", ratio=None if number else 1)
    for row in rows:
        made.add_row(*row)
    return made


if __name__ == "__main__":
    main()
