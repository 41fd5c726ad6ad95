"""Public benchmarks, one file each. The name of a module is the name of the benchmark; ``NAME/PART`` is one part.

A benchmark file has a docstring (source, layout on disk, what is unverified), ``COUNTS`` (part -> published number of
items; "" for the whole) and ``read(source, part)``, which yields EvalItems. ``source.items`` leaves out and counts rows
whose content is faulty. Optional:

- ``METRIC``: name of the headline if it is not accuracy; "category_mean" is the mean of the tasks.
- ``GROUPED``: part -> name of the share of clusters that are right as a whole.
- ``ALSO``: further checkers of tasks/checkers.py to report.
- ``PROMPT``: the default prompt.
- ``notes(items)``: further entries of the protocol, which must be equal for two numbers to be comparable.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from rich.table import Table

from latent_reason.errors import did_you_mean


def modules() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def names() -> list[str]:
    """Every benchmark and every part, as ``vsp/maze_main``."""
    return [f"{name}/{part}" if part else name for name in modules() for part in load(name).COUNTS]


def load(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")


def find(name: str) -> tuple[ModuleType, str]:
    """(module, part) of a name. Raises ValueError with the nearest known name."""
    if name not in names():
        parts = [known for known in names() if known.startswith(f"{name}/")]
        hint = f"Give one of its parts: {', '.join(parts)}." if parts else did_you_mean(name, names())
        raise ValueError(f"unknown benchmark '{name}'. {hint}")
    module, _, part = name.partition("/")
    return load(module), part


def benchmark_table() -> Table:
    """All benchmarks with published counts and descriptions. The docstrings of the modules give the layouts."""
    output = Table(title="python -m eval.benchmark CHECKPOINT NAME DIR --out FILE.json")
    for title in ("name", "items", "description"):
        output.add_column(title, justify="right" if title == "items" else "left")
    for name in modules():
        module = load(name)
        for k, (part, count) in enumerate(module.COUNTS.items()):
            output.add_row(
                f"{name}/{part}" if part else name,
                f"{count:,}",
                "" if k else module.__doc__.split("\n\n")[0].replace("\n", " "),
            )
    return output
