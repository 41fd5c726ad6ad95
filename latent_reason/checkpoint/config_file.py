"""``latent_reason.json``: what a checkpoint says of itself. Reading, checking, and upgrading older formats.

Format 1 (latent_reason 0.1) used other names for options and positions; :func:`upgrade` maps them.
"""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import Any

import torch

from ..errors import did_you_mean, find_checkout
from ..folders import check_folder, read_json

FORMAT = 2
CONFIG_FILE = "latent_reason.json"
KEYS = {"format", "method", "options", "latent_positions", "decoder", "control_tokens"}
#: types of values; a key that may be absent or null has NoneType
TYPES: dict[str, tuple[type, ...]] = {
    "method": (str, NoneType),
    "options": (dict,),
    "parts": (dict, NoneType),
    "slot_means": (list, NoneType),
    "feedback": (str, NoneType),
    "latent_positions": (str,),
    "decoder": (bool,),
    "control_tokens": (dict,),
    "base": (str, NoneType),
    "bits": (int, NoneType),
    "backbone_class": (str, NoneType),
    "layout": (str, NoneType),
    "files": (dict,),
    "notes": (dict,),
}
ROLES = ("open", "latent", "close")
#: names of format 1 -> names of format 2
OLD_OPTIONS = {
    "exposure": "scheduled_sampling",
    "sweeps": "jacobi_sweeps",
    "looks": "cross_attention_layers",
    "observed": "observation_weight",
    "own": "own_latents",
    "words": "text_states",
    "rule": "open_after_sentences",
}
OLD_SAMPLING = {"noise": "noise_std", "own": "prob", "serial": "sequential", "redraw": "reencode_prob"}
OLD_POSITIONS = {"line": "1d", "grid": "2d"}


def find_checkpoint(folder: str | Path) -> Path:
    """The checkpoint folder: ``folder`` itself, or its ``model`` if it is a run folder."""
    folder = Path(folder)
    has_config = (folder / CONFIG_FILE).is_file()
    return folder / "model" if not has_config and (folder / "model" / CONFIG_FILE).is_file() else folder


def read_config(folder: str | Path, *, check_files: bool = True) -> dict[str, Any]:
    """The checkpoint's description, in the current format. ``check_files`` checks that all its files are there, too.

    Raises:
        FileNotFoundError: not a checkpoint folder, or a file is missing; names the file.
        ValueError: written in another format, or damaged.
    """
    folder = find_checkpoint(folder)
    path = folder / CONFIG_FILE
    if not path.is_file():
        problem = f"it has no {CONFIG_FILE}" if folder.is_dir() else "there is no such folder"
        raise FileNotFoundError(f"'{folder}' is not a checkpoint: {problem}. {_suggest(folder)}")
    check_folder(folder)
    config = read_json(path)
    if not isinstance(config, dict):
        raise ValueError(f"'{path}' does not describe a checkpoint. Copy it again.")
    if config.get("format") not in (1, FORMAT):
        raise ValueError(
            f"'{folder}' has checkpoint format {config.get('format')}; this version reads formats 1 and {FORMAT} (it "
            f"was written by {config.get('written_by', 'an unknown version')}). Use that version, or export it again."
        )
    config = upgrade(config)
    if missing := KEYS - config.keys():
        lacking = ", ".join(sorted("positions" if key == "latent_positions" else key for key in missing))
        raise ValueError(f"'{path}' does not describe a checkpoint: it lacks {lacking}. Copy it again.")
    if not isinstance(getattr(torch, str(config.get("dtype", "float32")), None), torch.dtype):
        raise ValueError(f"'{path}' names dtype {str(config['dtype'])[:40]!r}, which torch lacks. Copy it again.")
    _check_types(config, path)
    if check_files:
        _check_files(folder, config)
    return config


def _check_types(config: dict[str, Any], path: Path) -> None:
    """Raises ValueError if a key has a value of another type."""
    for key, kind in TYPES.items():
        if not isinstance(config.get(key), kind) and key in config:
            raise ValueError(f"'{path}' says {key}: {str(config[key])[:60]!r}, which cannot be. Copy it again.")
    if not isinstance(config.get("notes", {}).get("data", {}), dict):
        raise ValueError(
            f"'{path}' says notes.data: {str(config['notes']['data'])[:60]!r}, which cannot be. Copy it again."
        )
    check_slot_means(config.get("slot_means"), path)
    check_feedback(config.get("feedback"), path)
    for role, token in config["control_tokens"].items():
        is_pair = isinstance(token, list) and [type(part) for part in token] == [str, int]
        if role not in ROLES or not is_pair:
            raise ValueError(
                f"'{path}' says control_tokens: {str(role)[:20]}: {str(token)[:60]}, expected {', '.join(ROLES)}, each "
                "with its token and id. Copy it again."
            )
    for name, size in config.get("files", {}).items():
        if not isinstance(size, int) or Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"'{path}' names the file {name[:60]!r}, which is none of this folder. Copy it again.")


def check_slot_means(value: Any, path: Path) -> Any:
    """The value itself: None, or the numbers of grids and slots whose means are stored. Raises ValueError for others."""
    is_pair = isinstance(value, list) and len(value) == 2 and all(type(n) is int and 0 < n < 2**16 for n in value)
    if value is not None and not is_pair:
        raise ValueError(f"'{path}' says slot_means: {str(value)[:60]}, expected two numbers. Copy it again.")
    return value


def check_feedback(value: Any, path: Path) -> Any:
    """The value itself: None, or how latents are fed. Raises ValueError for others."""
    if value not in (None, "raw", "norm_matched"):
        raise ValueError(f"'{path}' says feedback: {str(value)[:60]!r}, expected raw or norm_matched. Copy it again.")
    return value


def upgrade(config: dict[str, Any]) -> dict[str, Any]:
    """A description of format 1 in the names of format 2; others as they are."""
    if config.get("format") != 1:
        return config
    config = dict(config)
    if "positions" in config:
        positions = config.pop("positions")
        config["latent_positions"] = OLD_POSITIONS.get(positions, positions)
    if isinstance(config.get("options"), dict):
        config["options"] = upgrade_options(config["options"])
    return config


def upgrade_options(options: dict[str, Any]) -> dict[str, Any]:
    """Method options of format 1 in the names of format 2."""
    options = {OLD_OPTIONS.get(name, name): value for name, value in options.items()}
    if isinstance(sampling := options.get("scheduled_sampling"), dict):
        options["scheduled_sampling"] = {OLD_SAMPLING.get(name, name): value for name, value in sampling.items()}
    if isinstance(head := options.get("head_options"), dict):
        options["head_options"] = {"cross_attention_layers" if n == "looks" else n: v for n, v in head.items()}
    return options


def _check_files(folder: Path, config: dict[str, Any]) -> None:
    for name, size in config.get("files", {}).items():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"'{folder}' is incomplete: {name} is missing. Copy the checkpoint again.")
        found = (folder / name).stat().st_size
        if name.endswith(".safetensors") and found != size:
            raise ValueError(
                f"'{folder}' is incomplete: {name} has {found:,} bytes instead of {size:,}. Copy the checkpoint again."
            )


def _suggest(folder: Path) -> str:
    """Which checkpoint was meant: one inside the folder, else the one with the nearest name around it."""
    inner = sorted(p.parent for p in folder.glob(f"*/{CONFIG_FILE}"))
    if inner:
        return f"Did you mean '{inner[0]}'?"
    places = [place for place in (folder.parent, Path("checkpoints")) if place.is_dir()]
    around = {p for place in places for p in place.iterdir() if (find_checkpoint(p) / CONFIG_FILE).is_file()}
    if around:
        return did_you_mean(str(folder), map(str, around))
    return "Train one with: bash train/quickstart.sh" if find_checkout() else "Name the folder of a checkpoint."
