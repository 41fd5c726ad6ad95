"""Procedural tasks: infinite lists of problems with gold reasoning.

Example:
    >>> make("frozenlake_plan", level=4)[0]         # an item of a task of this package; names() lists them
    >>> make("my_pkg.tasks:MyTask", level=4)[0]     # an external Task, by its dotted path

The registry contains every concrete subclass of ``Task`` with a ``name`` in the modules of this package. A new task
needs no other registration.
"""

from __future__ import annotations

import inspect
import pkgutil
from functools import cache
from importlib import import_module

from .. import imports
from ..errors import did_you_mean
from ..imports import import_object, is_dotted_path
from ..values import check_options
from .base import Task
from .checkers import Check
from .item import Item, Parsed, Step

__all__ = ["Check", "Item", "Parsed", "Step", "Task", "check_trusted", "make", "names", "options", "own", "task_class"]


@cache
def _found() -> dict[str, type[Task]]:
    modules = (import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    classes = (c for module in modules for c in vars(module).values() if inspect.isclass(c) and issubclass(c, Task))
    return {c.name: c for c in classes if "name" in vars(c) and not inspect.isabstract(c)}


def names() -> list[str]:
    return sorted(_found())


def task_class(name: str) -> type[Task]:
    """The class of a task: one of :func:`names`, or the dotted path of an external class.

    Raises:
        ValueError: there is no such task.
    """
    if name in _found():
        return _found()[name]
    if not is_dotted_path(name):
        raise ValueError(
            f"no task {name!r}. {did_you_mean(name, names())} For a task of your own, give the dotted path of its "
            "class, such as my_pkg.tasks:MyTask."
        )
    return import_object(name, "task", Task)


def check_trusted(name: str, checkpoint: str) -> str:
    """Return ``name``, the task that a checkpoint was trained on. Raises UntrustedCode if its code is external and not
    marked as trusted; see :mod:`latent_reason.imports`."""
    if name not in _found() and is_dotted_path(name):
        imports.check_trusted(imports.split_path(name)[0], "task", checkpoint)
    return name


def options(name: str) -> list[str]:
    """The names of a task's options. Raises ValueError for an unknown task."""
    made = [inspect.signature(c.__init__).parameters.values() for c in task_class(name).__mro__ if issubclass(c, Task)]
    return sorted({p.name for parameters in made for p in parameters if p.kind is p.KEYWORD_ONLY})


def own(name: str, given: dict) -> dict:
    """Select from another task's options (as loaded from JSON) those that task ``name`` supports."""
    return {n: tuple(v) if isinstance(v, list) else v for n, v in given.items() if n in options(name)}


def make(name: str, **given) -> Task:
    """Create a task from its name or dotted path. Options are those of its class (split, seed, level, skin, ...).

    Raises:
        ValueError: the name or an option is unknown, or an option does not take the value.
    """
    known = options(name)
    for option in given:
        if option not in known:
            raise ValueError(f"task {name!r} has no option {option!r}. {did_you_mean(option, known)}")
    for one in task_class(name).__mro__:
        if issubclass(one, Task) and "__init__" in vars(one):
            check_options(given, one.__init__, f"task {name}: ")
    return task_class(name)(**given)
