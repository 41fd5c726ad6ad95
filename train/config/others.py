"""What a recipe says of a method or a task does not hold for another one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .keys import types_of

OF_RECORDS = ("folder", "streaming", "num_workers")


def drop_others(values: dict, changes: dict, config: type) -> dict:
    """The values of a recipe without those that belong to another method or task than the changes name.

    Another method has options of its own: all of ``method.options`` are dropped. Another task takes the place of records;
    of ``data.options`` and ``data.levels`` those stay that it has. A task by its dotted path is not imported to see that:
    it keeps the levels. Stages and arms that name no method or task of their own are changed in the same way.
    """
    method, task = _find(changes, "method.name"), _find(changes, "data.task")
    if method and method != (_find(values, "method.name") or _default(config, "method.name")):
        values = _in_all(values, "method", "name", _without_options)
    is_other = task != (_find(values, "data.task") or _default(config, "data.task"))
    if task and (is_other or _find(values, "data.folder")):
        from latent_reason import tasks  # not with this module, which every --help loads

        values = _in_all(values, "data", "task", partial(_for_task, task))
        levels = _find(values, "data.levels") or _default(config, "data.levels")
        levels = levels if _takes(task, level=levels) else list(tasks.task_class(task).trained)
        values = values | {"data": (values.get("data") or {}) | {"levels": levels}}
    return values


def _find(values: dict, key: str) -> Any:
    """The value of a dotted key; None where there is none."""
    group, _, name = key.partition(".")
    found = values.get(group)
    return found.get(name) if isinstance(found, dict) else None


def _default(config: type, key: str) -> Any:
    group, _, name = key.partition(".")
    made = types_of(config).get(group)
    return getattr(made(), name) if made else None


def _in_all(values: Any, group: str, name: str, change: Callable[[dict], dict]) -> Any:
    """The values with a group of keys changed, also in the stages and arms that do not set ``name`` of the group."""
    if not isinstance(values, dict):
        return values  # which an error will name
    values = dict(values)
    if isinstance(values.get(group), dict):
        values[group] = change(values[group])

    def inner(one: Any) -> Any:
        is_own = isinstance(one, dict) and _find(one, f"{group}.{name}")
        return one if is_own else _in_all(one, group, name, change)

    if isinstance(values.get("stages"), list):
        values["stages"] = [inner(stage) for stage in values["stages"]]
    if isinstance(values.get("arms"), dict):
        values["arms"] = {arm: inner(one) for arm, one in values["arms"].items()}
    return values


def _without_options(method: dict) -> dict:
    return {name: value for name, value in method.items() if name != "options"}


def _for_task(name: str, data: dict) -> dict:
    """The keys of data without those of records, and without options and levels that a task does not take."""
    from latent_reason import tasks

    kept = {key: value for key, value in data.items() if key not in OF_RECORDS}
    if isinstance(kept.get("options"), dict):
        known = tasks.options(name) if name in tasks.names() else ()
        kept["options"] = {k: v for k, v in kept["options"].items() if k in known and _takes(name, **{k: v})}
    if "levels" in kept and not _takes(name, level=kept["levels"]):
        del kept["levels"]
    return kept


def _takes(name: str, **options: Any) -> bool:
    """Whether a task can be made with some options; of a task outside of this package that is not known."""
    from latent_reason import tasks

    if name not in tasks.names():
        return True
    try:
        tasks.make(name, **{key: tuple(value) if isinstance(value, list) else value for key, value in options.items()})
    except (ValueError, TypeError):
        return False
    return True
