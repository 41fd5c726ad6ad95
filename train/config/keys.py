"""The keys of each config, and what is said of a key that a config does not have."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterator
from functools import cache

from latent_reason.errors import did_you_mean

from .trainers import CONFIGS

#: key of earlier versions -> key of today
OLD_KEYS = {
    "run": "run_name",
    "init": "init_from",
    "sharded": "fsdp",
    "log_every": "logging_steps",
    "sketch_every": "eval_steps",
    "save_every": "save_steps",
    "picture_weight": "reconstruction_weight",
    "backbone.positions": "backbone.latent_positions",
    "backbone.attn": "backbone.attn_implementation",
    "backbone.checkpointing": "backbone.gradient_checkpointing",
    "method.centred": "method.center_targets",
    "method.bottleneck": "method.attention_bottleneck_prob",
    "method.dropped": "method.latent_dropout",
    "data.paired": "data.pair_modes",
    "data.foreign": "data.swap_image_prob",
    "data.keep": "data.include_ids",
    "data.pack": "data.packing_length",
    "data.seen_gb": "data.feature_cache_gb",
    "data.stream": "data.streaming",
    "data.workers": "data.num_workers",
    "data.rehearse": "data.replay_texts",
    "data.rehearse_rows": "data.replay_batch_size",
    "optim.steps": "optim.max_steps",
    "data.batch_size": "data.global_batch_size",
    "optim.accumulate": "data.micro_batch_size",
    "optim.gradient_accumulation_steps": "data.micro_batch_size",
    "optim.other_lr": "optim.adamw_lr",
    "optim.warmup": "optim.warmup_steps",
    "optim.final": "optim.min_lr_ratio",
    "optim.clip": "optim.max_grad_norm",
    "lora.targets": "lora.target_modules",
    "rl.objective": "rl.loss_type",
    "rl.policy": "rl.latent_policy",
    "rl.policy_options": "rl.latent_policy_options",
    "rl.group": "rl.num_generations",
    "rl.prompts": "data.global_batch_size",
    "rl.num_prompts": "data.global_batch_size",
    "rl.updates": "rl.num_iterations",
    "rl.max_new": "rl.max_completion_length",
    "rl.kl": "rl.beta",
    "rl.latent_kl": "rl.latent_beta",
    "rl.anchor": "rl.sft_coef",
    "rl.anchor_on": "rl.sft_items",
    "rl.anchor_fade": "rl.sft_decay_steps",
    "rl.dual": "rl.dual_clip",
    "rl.refill": "rl.dynamic_sampling",
    "rl.unfinished": "rl.mask_truncated_completions",
    "rl.replay_rows": "data.micro_batch_size",
    "rl.micro_batch_size": "data.micro_batch_size",
    "rl.answer_with": "rl.answer_prefix",
    "rl.answer_room": "rl.answer_budget",
    "rl.latent_ratio": "rl.latent_importance_sampling_level",
    "rl.latent_clip": "rl.latent_epsilon",
    "rl.reference": "rl.ref_model",
    "rl.token_weight": "rl.max_token_weight",
    "rl.difficulty": "rl.difficulty_weighting",
    "rl.triples": "rl.evidence_triples",
    "rl.views": "rl.perturbations",
    "rl.view_latents": "rl.perturbation_latents",
    "rl.masked_share": "rl.perturbation_mask_ratio",
}
#: the same for values
OLD_VALUES = {
    "backbone.latent_positions": {"line": "1d", "grid": "2d"},
    "trainable": {"trunk": "text_model", "eye": "vision_encoder"},
    "rl.sampler": {"in_turn": "shuffle"},
    "rl.mask_truncated_completions": {"graded": "false", "left_out": "true"},
}
MOST_NAMED = 5  # old keys in one error


def is_group(hint) -> bool:
    return dataclasses.is_dataclass(hint)


def is_open(hint) -> bool:
    """Whether a key holds keys of its own that a config does not fix, such as method.options."""
    return typing.get_origin(hint) is dict


def is_list(hint) -> bool:
    return typing.get_origin(hint) in (list, tuple)


def is_text(hint) -> bool:
    return hint in (str, str | None)


@cache
def types_of(config: type) -> dict[str, typing.Any]:
    """Type of every field of a config or of a group of it."""
    return typing.get_type_hints(config)


@cache
def hints_of(config: type, prefix: str = "", with_bounds: bool = False) -> dict[str, typing.Any]:
    """Type of every key of a config, by its dotted name; ``with_bounds`` with those of its numbers."""
    hints = {}
    for name, hint in typing.get_type_hints(config, include_extras=with_bounds).items():
        if typing.get_origin(hint) is not typing.ClassVar:
            inner = hints_of(hint, f"{prefix}{name}.", with_bounds) if is_group(hint) else {prefix + name: hint}
            hints |= inner
    return hints


def flatten(values: dict, config: type, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted key, value) of nested values, down to where a key of the config or an unknown one is."""
    hints = hints_of(config)
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and key not in hints:
            yield from flatten(value, config, f"{key}.") if value else ()
        else:
            yield key, value


def check_keys(values: dict, config: type, where: str) -> None:
    """Raises ValueError for keys that a config does not have; says what to write instead.

    Keys of earlier versions are named together, with the keys of today.
    """
    hints, groups = hints_of(config), {key.rpartition(".")[0] for key in hints_of(config)} - {""}
    old, unknown = [], []
    for key, value in flatten(values, config):
        if key in groups:
            raise ValueError(f"{where}: {key} holds keys, such as {_first_key(key, hints)}; got {value!r}.")
        if key not in hints:
            (old if _today(key) else unknown).append(key)
    if old:
        named = "; ".join(_explain_old_key(key, config) for key in old[:MOST_NAMED])
        more = f"; and {len(old) - MOST_NAMED} more, see docs/configuration.md" if len(old) > MOST_NAMED else ""
        raise ValueError(f"{where}: {named}{more}.{_explain_batch(values)}")
    if unknown:
        raise ValueError(f"{where}: {explain_unknown_key(unknown[0], config)}")


def explain_unknown_key(key: str, config: type) -> str:
    """A sentence on a key that a config does not have."""
    if _today(key):
        return f"{_explain_old_key(key, config)}."
    hints = hints_of(config)
    if holder := next((known for known in hints if key.startswith(f"{known}.")), None):
        return f"unknown key '{key}'. {holder} holds no keys."
    if commands := _commands_with(key):
        return f"'{key}' is no key of {config.command}, but of {commands}. Remove it."
    return f"unknown key '{key}'. {_nearest_key(key, list(hints))}"


def explain_old_value(key: str, value) -> str:
    """What a value of an earlier version is today, as an addition to an error; empty if it is not one."""
    renamed = [f"'{old}' is now '{new}'" for old, new in OLD_VALUES.get(key, {}).items() if old in str(value)]
    return f" ({', '.join(renamed)})" if renamed else ""


def _today(key: str) -> str | None:
    """The key of today for one of an earlier version, which may be the group of it; None if it is not one."""
    return next((new for old, new in OLD_KEYS.items() if key == old or key.startswith(f"{old}.")), None)


def _explain_old_key(key: str, config: type) -> str:
    new = _today(key)
    if new in hints_of(config):
        return f"'{key}' is now '{new}'"
    return f"'{key}' is now '{new}', a key of {_commands_with(new)}"


def _explain_batch(values: dict) -> str:
    """What batches of an earlier version are today, as an addition to an error; empty for values without one."""
    data, optim = ({**(values.get(name) or {})} for name in ("data", "optim"))
    rows, times = data.get("batch_size"), optim.get("gradient_accumulation_steps", optim.get("accumulate", 1))
    if not isinstance(rows, int) or not isinstance(times, int):
        return ""
    return (
        f" data.global_batch_size counts the rows of all devices and accumulated batches. On one device, these were "
        f"data.global_batch_size: {rows * times} and data.micro_batch_size: {rows}."
    )


def _commands_with(key: str) -> str:
    """The commands whose config has a key, or a group of that name."""
    found = [c.command for c in CONFIGS if any(k == key or k.startswith(f"{key}.") for k in hints_of(c))]
    trainers = [name for name in found if "compare" not in name]
    return " and ".join(trainers or found)


def _first_key(group: str, hints: dict) -> str:
    return next(key for key in hints if key.startswith(f"{group}."))


def _nearest_key(key: str, known: list[str]) -> str:
    """A sentence that names the key most like this one: by its last part, by its whole name, by what is like either."""
    group, _, name = key.rpartition(".")
    by_name = {old.rpartition(".")[2]: new for old, new in OLD_KEYS.items() if new in known}
    by_name |= {k.rpartition(".")[2]: k for k in known}
    if name in by_name:
        return f"Did you mean '{by_name[name]}'?"
    if close := difflib.get_close_matches(key, known, n=1, cutoff=0.75):
        return f"Did you mean '{close[0]}'?"
    if close := difflib.get_close_matches(name, by_name, n=1):
        return f"Did you mean '{by_name[close[0]]}'?"
    return did_you_mean(key, [k for k in known if k.rpartition(".")[0] == group])
