"""One file a method. The name of a module is the name of its method.

Example:
    >>> build_method("mirage", load_backbone("tiny"), k=4)              # a method of this package
    >>> build_method("my_pkg.my_method", load_backbone("tiny"), k=4)    # a module of your own, by dotted path

A method file has a docstring (paper, idea, what differs, defaults and their source), ``PAPER``, ``SUMMARY``, ``MODE``
(the form of a trace it trains on), ``build_model(backbone, **options) -> LatentReasoner`` with what inference needs,
and ``build_objective(run, **options) -> Objective`` with what training adds. Their keywords are the method's options.
``OLDER``, where it is there, gives options that were added later, or whose default has changed, the value with which older
checkpoints and runs were made. ``SYSTEM_PROMPT`` is the system turn that the option ``system_prompt`` adds.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .. import values
from ..errors import did_you_mean
from ..imports import import_module, is_dotted_path

if TYPE_CHECKING:  # they import torch, and the list of methods does not
    from ..model.backbones.base import Backbone
    from ..model.reasoner import LatentReasoner
    from ..objectives.objective import Objective, RunOptions

PARTS = ("build_model", "build_objective", "PAPER", "SUMMARY", "MODE")


def names() -> list[str]:
    """The names of all methods."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def read_summary(name: str) -> tuple[str, str]:
    """``PAPER`` and ``SUMMARY`` of a method of this package, read from its source, so that nothing is imported."""
    source = Path(__path__[0], f"{name}.py").read_text(encoding="utf-8")
    found = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in PARTS
    }
    return found["PAPER"], found["SUMMARY"]


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
    """The options of a method, of model and objective, with their defaults."""
    module = load(name)
    return _keywords(module.build_objective) | _keywords(module.build_model)


def model_options(name: str) -> list[str]:
    """The options of a method that its model has. Others are of training alone."""
    return list(_keywords(load(name).build_model))


def check_options(name: str, options: dict[str, Any]) -> None:
    """Raises ValueError for an option that the method does not have, or a value that it does not take."""
    known = schema(name)
    for option in options:
        if option not in known:
            raise ValueError(
                f"method {name!r} has no option {option!r}. {did_you_mean(option, known)} "
                f"Its options: {', '.join(known) or 'none'}."
            )
    for build in (load(name).build_model, load(name).build_objective):
        values.check_options(options, build, f"method {name}: ")
    from ..model import heads

    kind = options.get("head", known["head"].default if "head" in known else None)
    if kind in heads.KINDS and options.get("head_options"):
        head: Any = heads.KINDS[kind]
        values.check_options(options["head_options"], head.__init__, f"head {kind}: ")


def with_older_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The saved options of a checkpoint or a run. Those that it lacks because it is older have the value that keeps it
    what it was."""
    return getattr(load(name), "OLDER", {}) | options


def system_prompt(name: str | None, options: dict[str, Any]) -> str:
    """The system turn that a method of this package adds to chats without one; empty for most."""
    return getattr(load(name), "SYSTEM_PROMPT", "") if name in names() and options.get("system_prompt") else ""


def build_method(name: str, backbone: Backbone, **options: Any) -> LatentReasoner:
    """The model of a method on a backbone.

    Example:
        >>> reasoner = build_method("modal_mixed", load_backbone("tiny"), k=8, head="mlp")

    Raises:
        ValueError: no such method, or an option that it does not have.
    """
    from ..model.reasoner import MethodRecord

    check_options(name, options)
    build = load(name).build_model
    reasoner = build(backbone, **_of(build, options))
    all_options = {option: p.default for option, p in schema(name).items()} | options
    reasoner.record_method(MethodRecord(name, all_options))
    return reasoner


def build_objective(name: str, run: RunOptions | None = None, **options: Any) -> Objective:
    """What training with a method minimizes, for options of :func:`build_method` and options ``run`` of the training
    run. Raises as :func:`build_method`."""
    check_options(name, options)
    build = load(name).build_objective
    return build(run, **_of(build, options))


def objective_of(reasoner: LatentReasoner, run: RunOptions | None = None) -> Objective:
    """The objective of the method, and of the options, that a model was built with.

    Raises:
        ValueError: the model was built by hand.
    """
    if reasoner.method.name is None:
        raise ValueError("this model was built by hand, without a method. Build an Objective for it by hand, too.")
    return build_objective(reasoner.method.name, run, **reasoner.method.options)


def _keywords(function: Any) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(function).parameters
    return {name: p for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _of(function: Any, options: dict[str, Any]) -> dict[str, Any]:
    known = _keywords(function)
    return {name: value for name, value in options.items() if name in known}
