"""Which keys of a config save memory, and keep what an optimizer step learns from or say that they do not."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..config import RLTrainingConfig, SFTConfig

RANK = 16  # of an adapter that is proposed


def changes_for(config: SFTConfig | RLTrainingConfig, gpus: int) -> Iterator[dict[str, Any]]:
    """Dotted keys with their new values: each change alone, then with those that cost time only."""
    slower = recompute(config) | shrink_batches(config)
    others = (split(config, gpus), round_weights(config), adapt(config), adapt(config) | quantize(config))
    singles = [keys for keys in (recompute(config), shrink_batches(config), *others) if keys]
    together = [slower | keys for keys in ({}, *others) if slower]
    for number, keys in enumerate(both := singles + together):
        if keys and keys not in both[:number]:
            yield keys


def recompute(config) -> dict[str, Any]:
    return {} if config.backbone.gradient_checkpointing else {"backbone.gradient_checkpointing": True}


def shrink_batches(config) -> dict[str, Any]:
    """One row a batch, and as many more batches."""
    if isinstance(config, RLTrainingConfig):
        return {} if config.rl.micro_batch_size == 1 else {"rl.micro_batch_size": 1}
    size, times = config.data.batch_size, config.optim.gradient_accumulation_steps
    return {} if size == 1 else {"data.batch_size": 1, "optim.gradient_accumulation_steps": size * times}


def split(config, gpus: int) -> dict[str, Any]:
    """FSDP2, which takes AdamW and weights in 32 bits."""
    if gpus == 1 or config.fsdp:
        return {}
    keys = {"fsdp": True, "precision": "bf16-mixed", "optim.name": "adamw"}
    return keys | with_option(config, "dtype", "float32")


def round_weights(config) -> dict[str, Any]:
    return {"precision": "bf16-true"} if isinstance(config, SFTConfig) and config.precision != "bf16-true" else {}


def adapt(config) -> dict[str, Any]:
    """An adapter on frozen weights in 16 bits."""
    if config.lora.rank:
        return {}
    return {"lora.rank": RANK, "trainable": ["lora", "head"]} | with_option(config, "dtype", "bfloat16")


def quantize(config) -> dict[str, Any]:
    keys = with_option(config, "bits", 4)
    if keys and "lora.rank" in adapt(config):
        keys["backbone.options"] |= {"dtype": "bfloat16"}
    return keys


def with_option(config, name: str, value: Any) -> dict[str, Any]:
    """The options of the backbone with one more; nothing where the backbone comes from a checkpoint or is tiny."""
    options = getattr(config.backbone, "options", None)
    if options is None or config.backbone.name.startswith("tiny"):
        return {}
    return {"backbone.options": options | {name: value}}


def change(config: Any, keys: dict[str, Any]) -> Any:
    """The config with other values of dotted keys. Raises ValueError as the config does."""
    for key, value in keys.items():
        name, _, rest = key.partition(".")
        config = replace(config, **{name: change(getattr(config, name), {rest: value}) if rest else value})
    return config


def command_line(keys: dict[str, Any]) -> str:
    """The keys as words of a command."""
    values = {key: json.dumps(v) if isinstance(v, dict | list | bool) else str(v) for key, v in keys.items()}
    return " ".join(f"--{key} {shlex.quote(value)}" for key, value in values.items())
