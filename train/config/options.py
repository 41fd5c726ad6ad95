"""All options of a run's methods: recipe.yaml holds them, so that a later default does not change a run that continues."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

Config = TypeVar("Config")


def complete(config: Config, begun: Config | None = None) -> Config:
    """A config with all options of its methods, of its stages too.

    An option that the config leaves out has its default, or the value of the checkpoint in a run that keeps the model
    (``keeps_model``). ``begun`` is the recipe of a run: what that leaves out, too, has the value with which the run
    began, which is older than the option.

    Raises:
        ValueError, FileNotFoundError: no such method or checkpoint.
    """
    if not hasattr(config, "method"):
        return config
    method = config.method
    earlier = begun.method.options if begun and begun.method.name == method.name else None
    options = _complete(config, method.name, method.options, earlier)
    made = dataclasses.replace(config, method=dataclasses.replace(method, options=options))
    if getattr(config, "stages", None):
        before = begun.stages if begun and len(begun.stages) == len(config.stages) else [{}] * len(config.stages)
        made.stages = [_complete_stage(config, *stages) for stages in zip(config.stages, before, strict=True)]
    return made


def _complete_stage(config, stage: dict, before: dict) -> dict:
    """The changes of a stage; one of another method has all options of that."""
    changes = stage.get("method") or {}
    name = changes.get("name", config.method.name)
    if name == config.method.name:
        return stage
    was = before.get("method") or {}
    earlier = (was.get("options") or {}) if was.get("name") == name else None
    return stage | {"method": changes | {"options": _complete(config, name, changes.get("options") or {}, earlier)}}


def _complete(config, name: str, options: dict, earlier: dict | None) -> dict:
    """All options of a method, those that are given first. ``earlier`` are those in the recipe of a run that continues."""
    from latent_reason import checkpoint, methods  # which import torch; --help does not

    defaults = {option: p.default for option, p in methods.schema(name).items()}
    found = dict(defaults)
    if config.init_from and getattr(config, "keeps_model", False) and not defaults.keys() <= options.keys():
        trained = checkpoint.read_config(config.init_from, check_files=False)
        if trained["method"] == name:
            found |= methods.with_older_options(name, trained["options"])
    if earlier is not None:
        begun = defaults | methods.with_older_options(name, {})
        found |= {option: value for option, value in begun.items() if option not in earlier}
    return options | {option: value for option, value in found.items() if option not in options}
