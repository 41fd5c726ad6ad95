"""One file a method. The name of a module is the name of its method.

    methods.build("mirage", load_backbone("tiny"), k=4)              # a method of this package
    methods.build("my_pkg.my_method", load_backbone("tiny"), k=4)    # a module of your own, by dotted path

A method module has a docstring (paper, idea, what differs, defaults and their source), ``PAPER`` (arXiv id), ``SUMMARY``
(one line), ``MODE`` (which form of a trace it trains on: direct, text, vision or mixed) and
``build(backbone, *, ...) -> LatentReasoner``, whose keywords are its options.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType

from ..errors import did_you_mean
from ..imports import import_module, is_dotted_path

PARTS = ("build", "PAPER", "SUMMARY", "MODE")


def names() -> list[str]:
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def load(name: str) -> ModuleType:
    """The module of a method: one of :func:`names`, or a dotted path to a module of your own.

    Raises:
        ValueError: no such method, or a module that lacks a part of a method.
    """
    if name in names():
        return importlib.import_module(f"{__name__}.{name}")
    if not is_dotted_path(name):
        raise ValueError(
            f"unknown method {name!r}. {did_you_mean(name, names())} Known methods: {', '.join(names())}. "
            "A method of your own is named by the dotted path of its module, as my_pkg.my_method."
        )
    module = import_module(name, "method")
    missing = [part for part in PARTS if not hasattr(module, part)]
    if missing:
        raise ValueError(f"method {name!r} lacks {', '.join(missing)}. A method module has {', '.join(PARTS)}.")
    return module


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
