"""Plans of the scripts of train/examples for the models of models.json, and the texts that show them.

    python -m train.planning.examples                # plans what train/examples/plans.json lacks, then writes the texts
    python -m train.planning.examples --only sft_lora

The texts are the head of each script and the table in docs/training.md. Remove a plan from the file to make it again.
"""

from __future__ import annotations

import argparse

NAMES = ("sft_lora", "sft_full", "rl_lora", "rl_full", "sft_full_fsdp", "rl_full_fsdp")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m train.planning.examples",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", choices=NAMES, help="plan one script")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

import json
import re
import shlex
from pathlib import Path
from typing import Any

from latent_reason.errors import cli_errors
from latent_reason.files import atomic_write_json, atomic_write_text

from ..config import RLTrainingConfig
from ..plan import read_config
from .devices import DEVICES
from .estimate import GIB, estimate
from .model import MODELS

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "train" / "examples"
PLANS, PAGE = SCRIPTS / "plans.json", ROOT / "docs" / "training.md"
SHARDED = 8  # GPUs of the script with FSDP
DEVICE, MFU = "H100", 0.4
BEGIN, END = "<!-- train/planning/examples.py -->", "<!-- end -->"


def read_plans() -> dict[str, Any]:
    return (
        json.loads(PLANS.read_text(encoding="utf-8"))
        if PLANS.exists()
        else {"schema": 1, "computed": True, "plans": {}}
    )


def command_of(script: Path) -> tuple[str, list[str]]:
    """(recipe, words after it) of the command that a script starts, its variables as they are."""
    line = next(line for line in script.read_text(encoding="utf-8").splitlines() if line.startswith("exec bash "))
    _, recipe, words = re.fullmatch(
        r'exec bash "\$\(dirname "\$0"\)/../(\w+)\.sh" (\S+) (.*) "\$\{@:2\}"', line
    ).groups()
    return recipe, shlex.split(words)


def plan_script(name: str, model: str) -> dict[str, Any]:
    """The figures of a script with a model, on one and on eight GPUs where it runs on both."""
    recipe, words = command_of(SCRIPTS / f"{name}.sh")
    config = read_config(str(ROOT / recipe), [model if word == "$model" else word for word in words])
    if not config.fsdp:  # on each GPU, what one alone takes
        config.data.global_batch_size *= SHARDED
    needs = estimate(config, SHARDED, model if isinstance(config, RLTrainingConfig) else None)
    seconds = needs.seconds(DEVICES[DEVICE], MFU)
    return {
        "parameters": sum(total for total, _ in needs.parameters.values()),
        "trained": sum(trained for _, trained in needs.parameters.values()),
        "needed_gib": {
            str(gpus): round(needs.needed(gpus) / GIB, 1) for gpus in ((SHARDED,) if config.fsdp else (1, SHARDED))
        },
        "memory_gib": {kind: round(n / GIB, 2) for kind, n in needs.memory(1).items()},
        "positions": needs.counts["positions"],
        "flops": sum(needs.flops.values()),
        "seconds_per_step": round(seconds, 3),
        "max_steps": config.optim.max_steps,
        "hours": round(seconds * config.optim.max_steps / 3600, 2),
    }


# -- texts -------------------------------------------------------------------------------------------------------------
def head_of(name: str, plans: dict[str, Any]) -> list[str]:
    """The lines of a script that state what it needs, as comments."""
    if name not in plans:
        return [f"# Memory and hours are not computed yet: python -m train.planning.examples --only {name}"]
    lines = [f"# Computed by train.plan, not measured: GiB of each GPU; hours on an {DEVICE} at {MFU:.0%} of its peak."]
    for model, found in plans[name].items():
        needed = ", ".join(f"{gib:g} GiB on {_gpus(gpus)}" for gpus, gib in found["needed_gib"].items())
        lines.append(f"#   {model}: {needed}; {found['max_steps']:,} steps in {found['hours']:.2f} hours")
    return lines


def table_of(plans: dict[str, Any]) -> list[str]:
    """The rows of the table in the documentation."""
    lines = [
        "| script | model | GiB, 1 GPU | GiB, 8 GPUs | positions of a GPU's step | hours |",
        "|---|---|---|---|---|---|",
    ]
    for name in NAMES:
        for model, found in plans.get(name, {}).items():
            one, eight = (found["needed_gib"].get(gpus, "") for gpus in ("1", str(SHARDED)))
            hours = f"{found['hours']:.2f} for {found['max_steps']:,} steps"
            lines.append(f"| `{name}.sh` | {model} | {one} | {eight} | {found['positions']:,} | {hours} |")
    return lines


def _gpus(number: str) -> str:
    return "1 GPU" if number == "1" else f"{number} GPUs"


def with_head(text: str, head: list[str]) -> str:
    """A script with other lines between its second line and its first command."""
    lines = text.splitlines()
    first = lines.index("set -euo pipefail")
    return "\n".join([*lines[:2], *head, *lines[first:]]) + "\n"


def with_table(text: str, rows: list[str], begin: str = BEGIN, end: str = END) -> str:
    """The page with other rows between two marks."""
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return before + "\n".join([begin, "", *rows, "", end]) + after


def write_texts(plans: dict[str, Any]) -> None:
    for name in NAMES:
        script = SCRIPTS / f"{name}.sh"
        atomic_write_text(script, with_head(script.read_text(encoding="utf-8"), head_of(name, plans)))
    atomic_write_text(PAGE, with_table(PAGE.read_text(encoding="utf-8"), table_of(plans)))


@cli_errors()
def main(argv: list[str] | None = None) -> None:
    given = parse_arguments(argv)
    found = read_plans()
    for name in [given.only] if given.only else NAMES:
        for model in json.loads(MODELS.read_text(encoding="utf-8"))["models"]:
            if model not in found["plans"].get(name, {}):
                print(f"{name} {model}", flush=True)
                found["plans"].setdefault(name, {})[model] = plan_script(name, model)
                atomic_write_json(PLANS, found)
    write_texts(found["plans"])


if __name__ == "__main__":
    main()
