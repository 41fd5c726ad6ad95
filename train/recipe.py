"""Recipes: everything a run depends on, as dataclasses that a YAML file and the command line fill in.

    python -m train.sft --config train/recipes/NAME.yaml --optim.steps 500
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from latent_reason.files import nearest


@dataclass
class Backbone:
    """``name``: tiny, a folder, or a Hub name; ignored where the run starts from a checkpoint (``init``)."""

    name: str = "tiny"
    positions: str = "line"
    attn: str = "sdpa"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Method:
    """A file of latent_reason/methods and its options."""

    name: str = "modal_mixed"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Data:
    """Items of a task, made on the fly; or a folder of native records (``folder``)."""

    task: str = "frozenlake_plan"
    levels: list[int] = field(default_factory=lambda: [3, 4])
    items: int = 4000
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    folder: str | None = None
    batch_size: int = 32
    val_items: int = 64


@dataclass
class Optim:
    """``name``: muon (matrices by Muon at ``lr``, the rest by AdamW at ``other_lr``) or adamw (all at ``lr``). Linear
    warm-up, cosine decay to ``final`` of the peak."""

    name: str = "muon"
    steps: int = 1000
    lr: float = 5e-3
    other_lr: float = 2e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    warmup: int = 30
    final: float = 0.05
    clip: float = 1.0


@dataclass
class Recipe:
    """One run. ``init`` is a checkpoint folder to start from; ``run`` names the folder under checkpoints/."""

    run: str = "run"
    init: str | None = None
    seed: int = 0
    backbone: Backbone = field(default_factory=Backbone)
    method: Method = field(default_factory=Method)
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    trainable: list[str] = field(default_factory=lambda: ["trunk", "embeddings", "head"])
    precision: str = "32-true"
    accelerator: str = "auto"
    devices: str = "auto"
    log_every: int = 10
    sketch_every: int = 0  # steps between sketch panels; 0: at the end only
    picture_weight: float = 10.0  # pretraining: weight of the picture loss beside the reading loss
    fast_dev_run: bool = False


def parse(argv: list[str] | None = None, description: str = "") -> Recipe:
    """The recipe of a command line. Exits with one sentence for an unknown key, naming the nearest known one."""
    from jsonargparse import ActionConfigFile, ArgumentParser

    argv = sys.argv[1:] if argv is None else argv
    if "--fast_dev_run" in argv:
        at = argv.index("--fast_dev_run")
        if at + 1 == len(argv) or argv[at + 1].startswith("--"):
            argv = [*argv[:at], "--fast_dev_run=true", *argv[at + 1:]]
    parser = ArgumentParser(description=description, exit_on_error=True)
    parser.add_argument("--config", action=ActionConfigFile, help="a YAML recipe")
    parser.add_class_arguments(Recipe)
    for problem in _problems(argv):
        raise SystemExit(problem)
    given = parser.parse_args(argv)
    return parser.instantiate_classes(given)["recipe"] if "recipe" in given else _recipe(given)


def _recipe(given) -> Recipe:
    values = given.as_dict()
    values.pop("config", None)
    return build(Recipe, values)


def build(kind, values: dict):
    """A (nested) dataclass from plain values. Raises ValueError for an unknown key."""
    hints, known = typing.get_type_hints(kind), {f.name for f in dataclasses.fields(kind)}
    for key in values:
        if key not in known:
            raise ValueError(f"unknown key {key!r}. {nearest(key, known)}")
    return kind(**{k: build(hints[k], v) if dataclasses.is_dataclass(hints[k]) and isinstance(v, dict) else v
                   for k, v in values.items()})


def load(path: str | Path, **changes) -> Recipe:
    """A recipe file. ``changes`` are dotted keys with ``__``: ``load(f, optim__steps=3)``."""
    path = Path(path)
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    for problem in check(values, str(path)):
        raise ValueError(problem)
    recipe = build(Recipe, values)
    for key, value in changes.items():
        *way, last = key.split("__")
        holder = recipe
        for name in way:
            holder = getattr(holder, name)
        setattr(holder, last, value)
    return recipe


def dump(recipe: Recipe) -> str:
    """The resolved recipe as YAML."""
    plain = dataclasses.asdict(recipe)
    plain["optim"]["betas"] = list(plain["optim"]["betas"])
    return yaml.safe_dump(plain, sort_keys=False)


def check(values: dict, where: str, kind=Recipe, prefix: str = "") -> list[str]:
    """A sentence for every key a recipe may not have."""
    hints, known = typing.get_type_hints(kind), {f.name for f in dataclasses.fields(kind)}
    problems = []
    for key, value in values.items():
        if key not in known:
            problems.append(f"{where}: unknown key '{prefix}{key}'. {nearest(key, known)}")
        elif dataclasses.is_dataclass(hints[key]) and isinstance(value, dict):
            problems += check(value, where, hints[key], f"{prefix}{key}.")
    return problems


def _problems(argv: list[str]) -> list[str]:
    problems = []
    for i, word in enumerate(argv):
        name, _, value = word.partition("=")
        if name == "--config":
            path = Path(value or (argv[i + 1] if i + 1 < len(argv) else ""))
            if not path.is_file():
                found = sorted(str(p) for p in Path("train/recipes").glob("*.yaml"))
                problems.append(f"recipe '{path}' is not there. {nearest(str(path), found)}")
                continue
            problems += check(yaml.safe_load(path.read_text(encoding="utf-8")) or {}, str(path))
        elif name.startswith("--") and name not in ("--help", "--print_config"):
            keys, holder = name[2:].split("."), {}
            if keys[0] == "fast_dev_run" or keys[-1] == "help":
                continue
            for key in reversed(keys):
                holder = {key: holder}
            problems += check(holder, "command line")
    return problems
