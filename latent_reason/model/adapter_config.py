"""``adapter_config.json`` of a LoRA and the pattern of its modules, as strangers may have written them.

peft follows what it reads there: other kinds of adapters, modules to import, files. So only the settings that
:func:`.adapters.add` makes are accepted, and every other one has to have its default.
"""

from __future__ import annotations

import re
from pathlib import Path
from re import _parser as regex_parser  # type: ignore[attr-defined]  # private, but the only parser of patterns
from typing import TYPE_CHECKING, Any

from ..folders import read_json

if TYPE_CHECKING:  # --help of the training commands reads this file without torch
    from .weight_files import Stored

LINEAR = r".*\.(language|text)_model\..*\.(q|k|v|o|gate|up|down)_proj"  # every linear layer of the text model

SETTINGS = {"r", "lora_alpha", "lora_dropout", "target_modules", "trainable_token_indices"}
#: what peft notes and nothing here follows
NOTES = {"base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "task_type", "peft_version"}
NAME_LENGTH = 100  # characters of the full name of a module
MOST_WAYS = 2_000_000  # ways to match a pattern with one name: more would take seconds


def check_pattern(pattern: Any) -> None:
    """Check that matching a pattern with names of modules takes bounded time.

    Raises:
        ValueError: it is no pattern, or matching may take for ever: repetitions inside of repetitions, or too many.
    """
    try:
        tree = regex_parser.parse(pattern)
    except (re.error, RecursionError, OverflowError, TypeError) as error:
        raise ValueError(f"the pattern {str(pattern)[:60]!r} is not a regular expression ({error}).") from error
    if len(pattern) > 1000 or _count_ways(tree) > MOST_WAYS:
        raise ValueError(
            f"the pattern {pattern[:60]!r} may take for ever to match. Use at most two of .* and .+, and repeat no group."
        )


def _count_ways(tree: Any) -> int:
    """An upper bound of the ways in which a parsed pattern can match one name; beyond ``MOST_WAYS`` any number."""
    ways = 1
    for operation, value in tree:
        name = str(operation)
        if name == "BRANCH":
            ways *= sum(map(_count_ways, value[1]))
        elif name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            low, high, body = value
            inner, longest = _count_ways(body), min(int(high), NAME_LENGTH)
            ways *= (longest - min(int(low), longest) + 1) * (inner ** min(longest, 64) if inner > 1 else 1)
        else:  # groups and lookarounds hold a pattern, letters do not
            parts = value if isinstance(value, tuple | list) else [value]
            for part in parts:
                ways *= _count_ways(part) if isinstance(part, regex_parser.SubPattern) else 1
        if ways > MOST_WAYS:
            break
    return ways


def check_adapter_config(folder: Path, defaults: dict[str, Any], stored: dict[str, Stored]) -> None:
    """Check the settings of a saved adapter. ``defaults`` are those of peft, ``stored`` is the header of its weights.

    Raises:
        FileNotFoundError, ValueError: there are none, they are damaged, or they ask for more than
            :func:`.adapters.add` makes.
    """
    file = folder / "adapter_config.json"
    given = read_json(file)
    if not isinstance(given, dict) or given.get("peft_type") != "LORA":
        raise ValueError(f"'{file}' does not describe a LoRA. Copy it again.")
    for key, value in given.items():
        usual = value == _as_json(defaults[key]) if key in defaults else not value  # a key of another version of peft
        if key not in SETTINGS | NOTES | {"peft_type"} and not usual:
            raise ValueError(
                f"'{file}' says {key}: {str(value)[:60]!r}, which adapters of this library do not have. Merge the adapter "
                "into its base, or remove the key."
            )
    library = (given.get("auto_mapping") or {}).get("parent_library") or "transformers"
    if library.partition(".")[0] != "transformers":
        raise ValueError(f"'{file}' is for a model of {library[:60]!r}, which is not imported. Copy it again.")
    try:
        check_pattern(given.get("target_modules"))
    except ValueError as error:
        raise ValueError(f"'{file}': target_modules, {error}") from error
    ranks = {one.shape[0] for name, one in stored.items() if ".lora_A." in name and one.shape}
    if ranks != {given.get("r")}:
        found = ", ".join(map(str, sorted(ranks)[:3])) or "no adapter"
        raise ValueError(f"'{file}' says r: {str(given.get('r'))[:30]}, but the weights beside it have {found}.")
    check_tokens(given.get("trainable_token_indices"), stored, file)


def check_tokens(given: Any, stored: dict[str, Stored], file: Path) -> None:
    """Raises ValueError if the trained rows of the embeddings are not as many as the weights hold."""
    rows = {one.shape[0] for name, one in stored.items() if "trainable_tokens" in name and one.shape}
    counts = {len(ids) for ids in given.values() if isinstance(ids, list)} if isinstance(given, dict) else set()
    if rows != counts:
        raise ValueError(
            f"'{file}' trains other rows of the embeddings than the weights beside it hold. Copy both again."
        )


def _as_json(value: Any) -> Any:
    """A default as JSON holds it."""
    return list(value) if isinstance(value, set | tuple) else value
