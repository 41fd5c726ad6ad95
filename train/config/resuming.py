"""The config of a run that continues: the recipe in its folder, with the few keys that may change."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TypeVar

from .options import complete

ROOT = Path("checkpoints")
RECIPE = "recipe.yaml"  # in the folder of every run
#: keys that say how a run is carried out, not what it learns
CHANGEABLE = {
    "resume",
    "run_name",
    "accelerator",
    "devices",
    "logger",
    "logging_steps",
    "eval_steps",
    "save_steps",
    "save_total_limit",
    "data.micro_batch_size",
}

Config = TypeVar("Config")


def folder_of(run_name: str) -> Path:
    """``checkpoints/RUN_NAME``; a name with a slash is a path of its own."""
    return Path(run_name) if "/" in run_name else ROOT / run_name


def folder_to_resume(name: str) -> Path:
    """The folder of a run that is named or whose path is given.

    Raises:
        FileNotFoundError: there is no run.
    """
    for folder in (folder_of(name), Path(name)):
        if (folder / RECIPE).is_file():
            return folder.resolve() if ".." in folder.parts else folder
    raise FileNotFoundError(f"--resume: '{folder_of(name)}' is no folder of a run, it has no {RECIPE}.")


def continued(folder: Path, old: Config, new: Config) -> Config:
    """``new`` with all options of its methods, for a run whose recipe is ``old``. Options that are newer than the recipe
    have the values with which the run began. Raises as :func:`check_same_run`."""
    new = complete(new, old)
    check_same_run(folder, complete(old, old), new)
    return new


def check_same_run(folder: Path, old: Config, new: Config) -> None:
    """Raises ValueError for keys of ``new`` that a run, whose recipe is ``old``, cannot continue with."""
    before, now = _flat(dataclasses.asdict(old)), _flat(dataclasses.asdict(new))
    differ = sorted(
        key for key in before.keys() | now.keys() if before.get(key) != now.get(key) and key not in CHANGEABLE
    )
    if differ:
        key = differ[0]
        raise ValueError(
            f"--resume: {key} is {now.get(key)!r}, but the run in '{folder}' has {before.get(key)!r}"
            f"{f' (and {len(differ) - 1} more keys differ)' if differ[1:] else ''}. A run continues with its own recipe; "
            f"keys that may change: {', '.join(sorted(CHANGEABLE - {'resume', 'run_name'}))}."
        )


def _flat(values: dict, prefix: str = "") -> dict:
    """Values by dotted key. Tuples become lists, as YAML has them."""
    flat: dict = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + str(name)] = list(value) if isinstance(value, tuple) else value
    return flat
