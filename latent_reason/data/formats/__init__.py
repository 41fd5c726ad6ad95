"""Formats of other projects, one module each. The module name is the format name.

``REQUIRED`` are columns by which its rows are known. ``read(source, image_root, report, limits, *, options)`` yields a
Trace or a DataError per row. The optional ``write(traces, folder, lossy, report)`` creates a new folder that ``read``
accepts. Sources are the files of sources.py. An image is a path, a data URL, bytes or {bytes, path}.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from types import ModuleType

from ...errors import did_you_mean


def names() -> list[str]:
    """The names of all formats."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> ModuleType:
    """Import the module of a format. Raises ValueError, with the closest known name, for an unknown format."""
    if name not in names():
        raise ValueError(f"unknown format '{name}'. {did_you_mean(name, names())} Known formats: {', '.join(names())}.")
    return importlib.import_module(f"{__name__}.{name}")


def writable() -> list[str]:
    """The names of formats that can be written."""
    return [name for name in names() if hasattr(load(name), "write")]


def options(name: str) -> list[str]:
    """The names of the options of a format's ``read`` function."""
    parameters = inspect.signature(load(name).read).parameters.values()
    return [option.name for option in parameters if option.kind is inspect.Parameter.KEYWORD_ONLY]


def describe(columns: Iterable[str]) -> str:
    """A sentence with some columns of a file and the formats whose rows have them; empty without columns."""
    columns = list(columns)
    if not columns:
        return ""
    required = {name: getattr(load(name), "REQUIRED", None) for name in names()}  # a format may take any columns
    likely = [name for name, needed in required.items() if needed and needed <= set(columns)]
    found = ", ".join(f"'{column[:40]}'" for column in columns[:6])
    return f" Its columns are {found}{', ...' * (len(columns) > 6)}" + (f": {' or '.join(likely)}?" if likely else ".")
