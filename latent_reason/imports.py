"""Objects of a user's own package, named by dotted path: methods, tasks, heads, backbones and rewards.

    import_module("my_pkg.my_method", "method")
    import_object("my_pkg.heads.MyHead", "head", LatentHead)        # or my_pkg.heads:MyHead

A path that a person types or a recipe holds is imported; its module is named on the console before. A path that a
checkpoint names is not: loading a download must not run code that the download chose. :func:`restrict_imports` marks
the blocks in which names come from a checkpoint. There a path is accepted if its module is already imported, or if
``LATENT_REASON_PLUGINS=my_pkg,other.module`` lists it or a package that holds it.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from .errors import did_you_mean

PLUGINS = "LATENT_REASON_PLUGINS"
#: the checkpoint whose names are read; "" where its modules may be imported, None outside of checkpoints
_checkpoint: ContextVar[str | None] = ContextVar("checkpoint", default=None)


class UntrustedCode(ValueError):
    """A checkpoint names a module that nobody said is trusted."""


def is_dotted_path(name: str) -> bool:
    """Whether a name has the form of a dotted path: ``my_pkg.my_method`` or ``my_pkg.heads:MyHead``."""
    return re.fullmatch(r"[^\W\d]\w*([.:][^\W\d]\w*)+", name) is not None


def import_module(path: str, what: str) -> ModuleType:
    """The module at a dotted path. ``what`` names its role in errors: method, task, ... A module that was not imported
    yet is named on stderr before its code runs.

    Raises:
        ValueError: there is no such module.
        UntrustedCode: a checkpoint names it, see :func:`restrict_imports`.
    """
    checkpoint = _checkpoint.get()
    if checkpoint:
        check_trusted(path, what, checkpoint)
    if path not in sys.modules and path.partition(".")[0] != __package__:
        named = "" if checkpoint is None else ", which a checkpoint names"
        print(f"Importing {path} ({what}{named})", file=sys.stderr)
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise  # the module is there; it imports another one that is missing
        raise ValueError(
            f"{what} {path!r}: there is no module '{error.name}'. Install its package, or add the folder that holds "
            "it to PYTHONPATH."
        ) from None


def import_object(path: str, what: str, base: type | None = None) -> Any:
    """The object at ``module.name`` or ``module:name``; with ``base`` a class that has to be a subclass of it.

    Raises:
        ValueError: the module or the name is missing, or the object is of another kind; see also
            :func:`import_module`.
    """
    module_path, name = split_path(path)
    module = import_module(module_path, what)
    found = getattr(module, name, None)
    is_unseen = found is None and hasattr(module, "__path__") and importlib.util.find_spec(f"{module_path}.{name}")
    if isinstance(found, ModuleType) or is_unseen:
        raise ValueError(f"{what} {path!r} is a module. Name what it holds: {path.replace(':', '.')}:NAME.")
    if found is None:
        public = [known for known in vars(module) if not known.startswith("_")]
        raise ValueError(f"{what} {path!r}: module '{module_path}' has no '{name}'. {did_you_mean(name, public)}")
    if base is not None and not (inspect.isclass(found) and issubclass(found, base) and not inspect.isabstract(found)):
        abstract = inspect.isclass(found) and sorted(getattr(found, "__abstractmethods__", ()))
        lacks = f" It does not implement {', '.join(abstract)}." if abstract else ""
        raise ValueError(f"{what} {path!r} has to be a subclass of {base.__module__}.{base.__name__}.{lacks}")
    return found


def split_path(path: str) -> tuple[str, str]:
    """The module and the name of ``module.name`` or ``module:name``."""
    module, _, name = path.replace(":", ".").rpartition(".")
    return module, name


def check_trusted(module: str, what: str, checkpoint: str) -> None:
    """Raises UntrustedCode if a checkpoint names a module that is neither imported nor listed in the environment."""
    listed = [name.strip() for name in os.environ.get(PLUGINS, "").split(",") if name.strip()]
    if module not in sys.modules and not any(f"{module}.".startswith(f"{name}.") for name in listed):
        raise UntrustedCode(
            f"'{checkpoint}' names a {what} of the module '{module}'. Using it would run code that is not part of "
            f"latent_reason. If you trust it, set {PLUGINS}={module.partition('.')[0]}, or in Python import {module} "
            "before."
        )


@contextmanager
def restrict_imports(checkpoint: str | os.PathLike[str], allow: bool = False) -> Iterator[None]:
    """A block in which names come from a checkpoint, so that new modules are imported only with ``allow``. A block
    inside one with ``allow`` has it, too."""
    token = _checkpoint.set("" if allow or _checkpoint.get() == "" else str(checkpoint))
    try:
        yield
    finally:
        _checkpoint.reset(token)


def path_of(cls: type) -> str | None:
    """The dotted path of a class, as ``my_pkg.backbones:MyBackbone``; None for a class of latent_reason."""
    return None if cls.__module__.partition(".")[0] == "latent_reason" else f"{cls.__module__}:{cls.__qualname__}"
