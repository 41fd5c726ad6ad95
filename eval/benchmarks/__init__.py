"""Public benchmarks, one file each; a module's name is the benchmark's name, and ``NAME/PART`` is one part of it.

A benchmark file has a docstring (source, layout on disk, what of it is unverified), ``COUNTS`` (part -> published
number of items; the only part of most is ""), and ``read(source, part)``, which yields an EvalItem a row. It may have
``METRIC`` (the name of the headline, where it is not accuracy; "category_mean" is the mean of its tasks), ``GROUPED``
(the name of the share of clusters that are right as a whole), ``ALSO`` (checkers of tasks/checkers.py reported beside),
``PROMPT`` (the prompt unless another is asked for) and ``notes(items)`` (more that must be equal for two numbers to
compare).
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from latent_reason.errors import did_you_mean


def modules() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def names() -> list[str]:
    """Every benchmark, and every part of one that has parts, as ``vsp/maze_main``."""
    return [f"{name}/{part}" if part else name for name in modules() for part in load(name).COUNTS]


def load(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")


def find(name: str) -> tuple[ModuleType, str]:
    """(module, part) of a name. Raises ValueError with the nearest known one."""
    if name not in names():
        parts = [known for known in names() if known.startswith(f"{name}/")]
        hint = f"It has parts, name one of: {', '.join(parts)}." if parts else did_you_mean(name, names())
        raise ValueError(f"unknown benchmark '{name}'. {hint}")
    module, _, part = name.partition("/")
    return load(module), part
