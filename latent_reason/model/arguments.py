"""Modules that remember the arguments they were built with, so that a model built by hand can be saved."""

from __future__ import annotations

import inspect
from typing import Any


class KeepsArguments:
    """Mix-in: ``arguments`` maps the names of constructor arguments to their values, defaults included, the backbone left out."""

    arguments: dict[str, Any]

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind_partial(self, *args, **kwargs)
        bound.apply_defaults()
        given = dict(bound.arguments)
        for name in ("self", "backbone"):
            given.pop(name, None)
        self.__dict__["arguments"] = given  # before nn.Module.__init__, which would refuse an ordinary assignment
        return self
