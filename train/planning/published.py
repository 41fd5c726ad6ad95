"""Which ways of training the recipes of train/recipes/published fit on eight GPUs of 80 GiB.

    python -m train.planning.published                # plans what plans.json lacks, prints the table
    python -m train.planning.published --only mirage

Records of the papers are not here: boards stand for them, with as many positions as ``POSITIONS``. The table in
docs/training.md is what this prints. Remove a plan from the file to make it again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "train" / "recipes" / "published"
NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m train.planning.published",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", choices=NAMES, help="plan one recipe")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and mistakes are answered before torch is imported

import json
from typing import Any

from latent_reason.errors import cli_errors
from latent_reason.files import atomic_write_json, atomic_write_text

from ..batch_sizes import data_parallel_size
from ..config import SFTConfig, stages_of
from ..plan import read_config
from .estimate import GIB, estimate
from .examples import with_table

PLANS, PAGE = RECIPES / "plans.json", ROOT / "docs" / "training.md"
GPUS, MEMORY, POSITIONS = 8, 80, 2048
BOARDS = ["--data.task", "frozenlake_plan", "--data.items", "64"]
LORA = ["--lora.rank", "16", "--trainable", "lora,head", "--backbone.options.dtype", "bfloat16"]
#: what is added to a recipe
WAYS = {
    "as it is": [],
    "fsdp": ["--fsdp", "true"],
    "fsdp, tensor_parallel_size 4": ["--fsdp", "true", "--tensor_parallel_size", "4"],
    "lora": LORA,
}
ENCODER = (
    1.6  # GiB of the vision encoder of SigLIP 2 so400m (428 million weights of 32 bits), for which a tiny one stands
)
BEGIN, END = "<!-- train/planning/published.py -->", "<!-- end of published -->"


def plan_way(recipe: str, words: list[str]) -> dict[str, Any]:
    """GiB of each GPU in the stage that needs most, or why a stage cannot be trained so."""
    try:
        config = read_config(str(RECIPES / f"{recipe}.yaml"), [*BOARDS, *words])
        extra = ENCODER if config.method.options.get("encoder", "tiny") != "tiny" else 0
        if extra:
            config.method.options["encoder"] = "tiny"
        gpus = most_gpus(config)
        needed = max(estimate(stage, gpus, length=POSITIONS).needed(gpus) for stage in stages_of(config))
        return {"gib": round(needed / GIB + extra, 1), "gpus": gpus}
    except ValueError as error:
        return {"refused": str(error)}


def most_gpus(config: SFTConfig) -> int:
    """The most GPUs, up to eight, that can share the batch of every stage."""

    def is_shared(gpus: int) -> bool:
        rows = (stage.data.global_batch_size % (data_parallel_size(stage, gpus)) for stage in stages_of(config))
        return gpus % config.tensor_parallel_size == 0 and not any(rows)

    return next(gpus for gpus in (GPUS, GPUS // 2, GPUS // 4, 1) if is_shared(gpus))


def table_of(plans: dict[str, Any]) -> list[str]:
    """The rows of the table in the documentation."""
    lines = [f"| recipe | {' | '.join(WAYS)} |", "|---|" + "---|" * len(WAYS)]
    for recipe, ways in sorted(plans.items()):
        lines.append(f"| `{recipe}.yaml` | {' | '.join(cell_of(ways.get(way, {})) for way in WAYS)} |")
    return lines


def is_spared(way: str, plans: dict[str, Any]) -> bool:
    """Whether matrices need not be shared, because split weights fit."""
    return way.startswith("fsdp,") and plans.get("fsdp", {}).get("gib", MEMORY + 1) <= MEMORY


def cell_of(found: dict[str, Any]) -> str:
    if "gib" not in found:
        return "refused" if found else ""
    gpus = "" if found["gpus"] == GPUS else f" on {found['gpus']}"
    return (f"**{found['gib']:g}**" if found["gib"] <= MEMORY else f"{found['gib']:g}") + gpus


@cli_errors()
def main(argv: list[str] | None = None) -> None:
    given = parse_arguments(argv)
    found = json.loads(PLANS.read_text(encoding="utf-8")) if PLANS.exists() else {"schema": 1, "computed": True}
    plans = found.setdefault("plans", {})
    for recipe in [given.only] if given.only else NAMES:
        for way, words in WAYS.items():
            if way not in plans.setdefault(recipe, {}) and not is_spared(way, plans[recipe]):
                print(f"{recipe}, {way}", flush=True)
                plans[recipe][way] = plan_way(recipe, words)
                atomic_write_json(PLANS, found)
    rows = table_of(plans)
    print("\n".join(rows))
    if not given.only:
        atomic_write_text(PAGE, with_table(PAGE.read_text(encoding="utf-8"), rows, BEGIN, END))


if __name__ == "__main__":
    main()
