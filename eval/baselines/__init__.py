"""Explicit thinking: one file a baseline. The name of a module is the name of its baseline.

Example:
    >>> baseline = make_baseline("crop:turns=2")
    >>> episodes = dict(run_episodes(reasoner, decoder, baseline, [baseline.problem(task, item)]))

A file has a docstring (paper, idea, what differs) and one subclass of :class:`~eval.turns.baseline.Baseline`.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil

from eval.turns.baseline import Baseline
from latent_reason import values
from latent_reason.errors import did_you_mean


def names() -> list[str]:
    """The names of all baselines."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def load(name: str) -> type[Baseline]:
    """The class of a baseline.

    Raises:
        ValueError: there is no such baseline.
    """
    if name not in names():
        raise ValueError(f"unknown baseline {name!r}. {did_you_mean(name, names())} Known: {', '.join(names())}.")
    module = importlib.import_module(f"{__name__}.{name}")
    [found] = [
        one
        for one in vars(module).values()
        if inspect.isclass(one) and issubclass(one, Baseline) and one.__module__ == module.__name__
    ]
    return found


def make_baseline(text: str) -> Baseline:
    """A baseline from its name and options: ``crop:turns=2,brief=true``.

    Raises:
        ValueError: an unknown name or option, or a value that does not fit.
    """
    name, _, given = text.partition(":")
    kind, options = load(name), values.read_options(given, name, "baseline")
    known = [field.name for field in dataclasses.fields(kind)]
    for option in options:
        if option not in known:
            raise ValueError(f"baseline {name!r} has no option {option!r}. {did_you_mean(option, known)}")
    values.check_options(options, kind, f"baseline {name}: ")
    return kind(**options)
