"""Command-line options and parameters of the contracts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .. import methods, tasks
from ..model.backbones.families import FAMILIES
from .fixtures import (  # noqa: F401
    CASES,
    Case,
    batch,
    float64,
    make_backbone,
    make_traces,
    picture,
    pytest_runtest_setup,
    ready_once,
    reasoner,
    sketcher,
    small,
)

OPTIONS = {
    "method": "a method: a name, or the dotted path of a module, as my_pkg.my_method",
    "task": "a task: a name, or the dotted path of a class, as my_pkg.tasks:MyTask",
    "backbone": "a model family such as gemma3, or my_pkg.backbones:MyBackbone@FOLDER with a small checkpoint",
}


def pytest_addoption(parser) -> None:
    group = parser.getgroup("latent_reason contracts")
    for name, about in OPTIONS.items():
        group.addoption(f"--{name}", action="append", help=f"run the {name} contract on {about} (repeatable)")
    group.addoption(
        "--method-options", type=json.loads, default={}, metavar="JSON", help="""options of --method: '{"k": 4}'"""
    )


def chosen(config, name: str) -> list[str]:
    """The values of an option. Empty if pytest was started without it."""
    return config.getoption(f"--{name}", None) or []


def subject_of(stem: str) -> str:
    """What a file of the contracts tests: ``method`` of test_method_decoding_contract."""
    return stem.removeprefix("test_").partition("_")[0]


def pytest_ignore_collect(collection_path: Path, config) -> bool | None:
    """If an option is set, run only its contract."""
    name = subject_of(collection_path.stem)
    return True if name in OPTIONS and any(chosen(config, n) for n in OPTIONS) and not chosen(config, name) else None


def cases_of_methods(config) -> list[Case]:
    options = config.getoption("--method-options", None) or {}
    return [Case(name, small(name, **options)) for name in chosen(config, "method")] or CASES


@pytest.fixture(scope="session")
def method_cases(request) -> list[Case]:
    """All methods under the contract."""
    return cases_of_methods(request.config)


def pytest_generate_tests(metafunc) -> None:
    subject, config = subject_of(metafunc.module.__name__.rpartition(".")[2]), metafunc.config
    if subject == "method":
        values = {"case": cases_of_methods(config)}
    elif subject == "task":
        values = {"name": chosen(config, "task") or tasks.names()}
    else:
        families = chosen(config, "backbone")
        shipped = [case for case in metafunc.module.CASES if case[0] in families or not families]
        own = [(family, "1d") for family in families if family not in dict(metafunc.module.CASES)]
        values = {"case": shipped + own, "family": families or list(FAMILIES)}
    for argument, found in values.items():
        if argument in metafunc.fixturenames:
            # of a module: pytest then runs all tests of one value in a row, and what they share is built once
            metafunc.parametrize(
                argument,
                found,
                ids=lambda value: " ".join(value) if type(value) is tuple else str(value),
                scope="module",
            )


def pytest_configure(config) -> None:
    """Resolve the names early, so that a wrong name is a one-line error."""
    try:
        for name in chosen(config, "method"):
            methods.load(name)
        for name in chosen(config, "task"):
            tasks.task_class(name)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
