"""Recipe files as plain values. A file of strangers costs little time and memory: it is small, and so is what it says."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from latent_reason.errors import did_you_mean
from latent_reason.values import DEEPEST, show

LARGEST = 2**20  # bytes of a file
MOST_NODES = 10_000  # values and keys of a file, with every alias as what it stands for


def read_recipe(path: str | Path) -> Any:
    """The value of a recipe file.

    Raises:
        FileNotFoundError: it does not exist; names the nearest shipped recipe.
        ValueError: it is no plain file, too large, or not YAML as :func:`parse_yaml` reads it.
    """
    path = Path(path)
    if not path.exists():
        shipped = sorted(p.as_posix() for p in Path("train/recipes").rglob("*.yaml"))
        named = str(path) if str(path).isprintable() else repr(str(path))[1:-1]
        raise FileNotFoundError(f"recipe '{named}' does not exist. {did_you_mean(path.as_posix(), shipped)}")
    if not path.is_file():  # to open a pipe or a device would wait for ever
        raise ValueError(f"recipe '{path}' is no plain file. Name a YAML file.")
    with open(path, "rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"{path}: is larger than {LARGEST // 2**20} MiB. A recipe holds keys and values only.")
    try:
        return parse_yaml(data.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start + 1}. Save the file as UTF-8.") from None


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text, with numbers such as 1e-3.

    Raises:
        ValueError: it is not YAML, has a key twice, or holds too many or too deep values.
    """
    if fault := find_fault(text):
        raise ValueError(f"{where}: {fault}")
    try:
        return get_loader("yaml")(text)
    except (yaml.YAMLError, ValueError) as error:  # a ValueError for a number of thousands of digits
        raise ValueError(f"{where}: not YAML: {show_error(error)}") from None


@dataclass
class Opened:
    """A list or a mapping whose end is not read yet."""

    anchor: str | None
    line: int
    is_mapping: bool
    size: int = 1  # values in it, with every alias as what it stands for
    keys: list[str | None] = field(default_factory=list)
    awaits_value: bool = False

    def add(self, size: int, scalar: str | None) -> str:
        """Count a value in it; returns the key that occurs twice, or an empty text."""
        self.size += size
        if not self.is_mapping:
            return ""
        self.awaits_value = not self.awaits_value
        twice = scalar or "" if self.awaits_value and scalar in self.keys else ""
        if self.awaits_value and scalar is not None:
            self.keys.append(scalar)
        return twice


def find_fault(text: str) -> str:
    """Why a YAML text is not read; empty if it is. Only events are looked at, before values are made of them: a few lines
    of aliases can stand for billions of values."""
    opened = [Opened(None, 0, False)]
    sizes: dict[str, int] = {}  # anchor -> values that its aliases stand for
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            anchor, size = getattr(event, "anchor", None), 1
            if isinstance(event, yaml.CollectionStartEvent):
                line = event.start_mark.line + 1
                opened.append(Opened(anchor, line, isinstance(event, yaml.MappingStartEvent)))
                if len(opened) > DEEPEST:
                    return f"holds lists or keys more than {DEEPEST} deep in line {line}. Write it flatter."
                continue
            if isinstance(event, yaml.AliasEvent):
                if anchor in [one.anchor for one in opened]:
                    return f"'*{show(anchor)}' holds itself. Remove it."
                anchor, size = None, sizes.get(anchor, 1)
            elif isinstance(event, yaml.CollectionEndEvent):
                done = opened.pop()
                anchor, size = done.anchor, done.size
            elif not isinstance(event, yaml.ScalarEvent):
                continue
            if anchor:
                sizes[anchor] = size
            if twice := opened[-1].add(size, getattr(event, "value", None)):
                return f"key '{show(twice)}' twice in the keys that begin in line {opened[-1].line}. Keep one."
            if opened[-1].size > MOST_NODES:
                return f"holds more than {MOST_NODES:,} values. Write fewer, or fewer aliases of them."
    except yaml.YAMLError as error:
        return f"not YAML: {show_error(error)}"
    return ""


def show_error(error: Exception) -> str:
    """What the parser says, on one line."""
    return " ".join(str(error).split())[:200]
