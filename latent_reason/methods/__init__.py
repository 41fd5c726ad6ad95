"""One file a method. A module's name is the method's name; adding a file is all a new method needs.

A method file has a docstring (paper, idea, what differs, defaults and their source), ``MODE`` (which form of a trace
it trains on) and ``build(backbone, **options) -> LatentReasoner`` whose keywords are its schema.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType

from ..errors import did_you_mean


def names() -> list[str]:
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def load(name: str) -> ModuleType:
    """The module of a method. Raises ValueError naming the nearest known method."""
    if name not in names():
        raise ValueError(f"unknown method {name!r}. {did_you_mean(name, names())} Known methods: {', '.join(names())}.")
    return importlib.import_module(f"{__name__}.{name}")


def schema(name: str) -> dict[str, inspect.Parameter]:
    """The options of a method and their defaults."""
    found = inspect.signature(load(name).build).parameters
    return {n: p for n, p in found.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def build(name: str, backbone, **options):
    """A reasoner by method name. Raises ValueError for an option the method does not have."""
    known = schema(name)
    for option in options:
        if option not in known:
            raise ValueError(
                f"method {name!r} has no option {option!r}. {did_you_mean(option, known)} "
                f"It has: {', '.join(known) or 'none'}."
            )
    reasoner = load(name).build(backbone, **options)
    reasoner.recipe = {"method": name, "options": {n: p.default for n, p in known.items()} | options}
    return reasoner
