"""Which keys of a config save memory, and keep what an optimizer step learns from or say that they do not."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..config import RLTrainingConfig, SFTConfig

RANK = 16  # of an adapter that is proposed


def changes_for(config: SFTConfig | RLTrainingConfig, gpus: int) -> Iterator[list[dict[str, Any]]]:
    """Lists of dotted keys with their new values. Each begins with a change and all those that cost time only; the others
    are worth a try where that fits, and need more memory."""
    singles = [keys for keys in (recompute(config), shrink_batches(config)) if keys]
    slower = {key: value for keys in singles for key, value in keys.items()}
    if singles[1:]:
        yield [slower, *singles]
    elif slower:
        yield [slower]
    for keys in others_for(config, gpus):
        if keys:
            yield [slower | keys, keys] if slower else [keys]


def others_for(config, gpus: int) -> Iterator[dict[str, Any]]:
    """Changes that cost more than time: devices, main memory, precision, or what is trained."""
    sharded = shard(config)
    if gpus > 1:
        yield sharded
        for keys in (reshard(config), share_matrices(config)):
            yield sharded | keys if keys else {}
    keys = offload(config)
    yield sharded | keys if keys else {}
    yield round_weights(config)
    yield adapt(config)
    if bits := quantize(config):
        yield adapt(config) | bits


def recompute(config) -> dict[str, Any]:
    return {} if config.backbone.gradient_checkpointing else {"backbone.gradient_checkpointing": True}


def shrink_batches(config) -> dict[str, Any]:
    """One row a batch, and as many more batches."""
    return {} if config.data.micro_batch_size == 1 else {"data.micro_batch_size": 1}


def shard(config) -> dict[str, Any]:
    """FSDP2, which takes AdamW and weights in 32 bits."""
    if config.fsdp:
        return {}
    keys = {"fsdp": True, "precision": "bf16-mixed", "optim.name": "adamw"}
    return keys | with_option(config, "dtype", "float32")


def reshard(config) -> dict[str, Any]:
    return {} if config.fsdp_reshard_after_forward else {"fsdp_reshard_after_forward": True}


def share_matrices(config) -> dict[str, Any]:
    return {} if config.tensor_parallel_size > 1 else {"tensor_parallel_size": 2}


def offload(config) -> dict[str, Any]:
    return {} if config.fsdp_cpu_offload else {"fsdp_cpu_offload": True}


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
    if options is None or config.init_from or config.backbone.name.startswith("tiny"):
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
