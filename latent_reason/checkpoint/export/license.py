"""The licence of the model a checkpoint began with: what its own card says, and its text."""

from __future__ import annotations

from pathlib import Path

import yaml
from huggingface_hub import ModelCard, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from ..model_card import UNKNOWN

OURS = {"license": "apache-2.0"}
TEXTS = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING")


def of(base: str | None) -> dict[str, str]:
    """``license``, ``license_name`` and ``license_link`` for a card, as the card of ``base`` has them: a folder, or a
    name on the Hub whose files are in the cache. ``other`` where it says nothing, ours where there is no base."""
    if base is None:
        return OURS
    file = find(base, "README.md")
    try:
        said = ModelCard.load(file).data.to_dict() if file else {}
    except (ValueError, yaml.YAMLError):  # a head that is none
        said = {}
    if isinstance(said.get("license"), str):
        return {key: said[key] for key in ("license", "license_name", "license_link") if isinstance(said.get(key), str)}
    return UNKNOWN


def text(base: str | None) -> Path | None:
    """The file with the licence of ``base``, where there is one on this machine."""
    return next(filter(None, (find(base, name) for name in TEXTS)), None) if base else None


def find(base: str, name: str) -> Path | None:
    """A file of a model, without asking the network."""
    if Path(base).is_dir():
        return Path(base, name) if Path(base, name).is_file() else None
    try:
        found = try_to_load_from_cache(base, name)
    except HFValidationError:  # a folder that is gone
        return None
    return Path(found) if isinstance(found, str) else None
