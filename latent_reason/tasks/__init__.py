"""Procedural tasks: ``make("frozenlake_plan", level=4)[0]`` is an item, ``names()`` lists what there is.

Every module of this package is searched for concrete subclasses of ``Task`` that carry a ``name``; a new task needs no
entry anywhere else.
"""

from __future__ import annotations

import difflib
import inspect
import pkgutil
from functools import cache
from importlib import import_module

from ..errors import did_you_mean
from .base import Item, Parsed, Step, Task
from .checkers import Check

__all__ = ["Check", "Item", "Parsed", "Step", "Task", "make", "names", "options", "own"]


@cache
def _found() -> dict[str, type[Task]]:
    modules = (import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    classes = (c for module in modules for c in vars(module).values() if inspect.isclass(c) and issubclass(c, Task))
    return {c.name: c for c in classes if "name" in vars(c) and not inspect.isabstract(c)}


def names() -> list[str]:
    return sorted(_found())


def options(name: str) -> list[str]:
    """The options a task of that name takes. Raises ValueError for an unknown name."""
    if name not in _found():
        near = difflib.get_close_matches(name, names(), 1, 0)[0]
        raise ValueError(f"no task {name!r}; the nearest name is {near!r} (all: {', '.join(names())})")
    made = [inspect.signature(c.__init__).parameters.values() for c in _found()[name].__mro__ if issubclass(c, Task)]
    return sorted({p.name for parameters in made for p in parameters if p.kind is p.KEYWORD_ONLY})


def own(name: str, given: dict) -> dict:
    """Of options that were given to another task, as JSON keeps them, those that task ``name`` has too."""
    return {n: tuple(v) if isinstance(v, list) else v for n, v in given.items() if n in options(name)}


def make(name: str, **given) -> Task:
    """The task of that name; options are those of its class (split, seed, level, skin, ...). Raises ValueError for an
    unknown name or option."""
    known = options(name)
    for option in given:
        if option not in known:
            raise ValueError(f"task {name!r} has no option {option!r}. {did_you_mean(option, known)}")
    return _found()[name](**given)
