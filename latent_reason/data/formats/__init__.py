"""Formats of others, one file each; a module's name is the format's name.

A format has ``read(source, image_root, report, limits, *, options)``, which yields a Trace or a DataError a row, and
may have ``write(traces, folder, lossy, report)``, which makes a new folder that ``read`` accepts. JSON, JSON lines and
parquet are read; a picture is a path, and in parquet also bytes or {bytes, path}.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType

from ...errors import did_you_mean


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> ModuleType:
    """The module of a format. Raises ValueError with the nearest known one."""
    if name not in names():
        raise ValueError(f"unknown format '{name}'. {did_you_mean(name, names())} Known formats: {', '.join(names())}.")
    return importlib.import_module(f"{__name__}.{name}")


def writable() -> list[str]:
    return [name for name in names() if hasattr(load(name), "write")]


def options(name: str) -> list[str]:
    """What ``read`` of a format can be told besides where to read."""
    found = inspect.signature(load(name).read).parameters.values()
    return [option.name for option in found if option.kind is inspect.Parameter.KEYWORD_ONLY]
