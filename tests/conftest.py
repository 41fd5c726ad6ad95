"""Fixtures that all tests share: those of the contracts (latent_reason/contracts/fixtures.py), small runs, and records in
the formats of others.
"""

from __future__ import annotations

import gc
import json

import pytest
from native_records import picture as noise
from PIL import Image as PILImage
from tiny_runs import recipe

from eval.sandbox import is_available, run_code
from latent_reason.contracts.fixtures import (  # noqa: F401
    CASES,
    batch,
    case,
    eager,
    fit,
    float64,
    loss_of,
    make_backbone,
    make_traces,
    objective_for,
    picture,
    pytest_runtest_setup,
    ready,
    ready_once,
    reasoner,
    sketcher,
    training_batch,
)
from train.config import dump


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked long, and only these")


def pytest_collection_modifyitems(config, items):
    """Tests marked ``long`` repeat in a larger form what others check. They run by themselves."""
    is_long = config.getoption("--slow")
    left_out = [item for item in items if (item.get_closest_marker("long") is not None) != is_long]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if (item.get_closest_marker("long") is not None) == is_long]


def pytest_collection_finish():
    """What is imported and collected stays to the end, so garbage is not looked for among it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def sandbox():
    """``run_code``, where this machine can confine code."""
    if reason := is_available():
        pytest.skip(f"no sandbox here: {reason}")
    return run_code


@pytest.fixture
def small(tmp_path):
    """Words of a command line for a run into ``tmp_path / "run"``."""
    (tmp_path / "small.yaml").write_text(dump(recipe(tmp_path / "run")))
    return ["--config", str(tmp_path / "small.yaml")]


# -- records and results ----------------------------------------------------------------------------------------------
@pytest.fixture
def write_records(tmp_path, monkeypatch):
    """A folder with two pictures, as seen from beside it; call it with rows (or raw bytes) to write ``d/a.jsonl``."""
    (tmp_path / "d" / "img").mkdir(parents=True)
    for seed, name in enumerate("ps"):
        noise(seed).save(tmp_path / "d" / "img" / f"{name}.png")
    monkeypatch.chdir(tmp_path)

    def make(*rows, name="a.jsonl"):
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        (tmp_path / "d" / name).write_bytes(b"\n".join(lines) + b"\n")
        return f"d/{name}"

    return make


@pytest.fixture
def write_results(tmp_path):
    """``write_results(name=value, ...)`` writes JSON files, dots for slashes; a text is written as it is."""

    def write(**files):
        for name, value in files.items():
            path = tmp_path / "in" / f"{name.replace('.', '/')}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(value if isinstance(value, str) else json.dumps(value))
        return tmp_path / "in"

    return write


# -- data of others ----------------------------------------------------------------------------------------------------
@pytest.fixture
def put(tmp_path, monkeypatch):
    """``put(name, *rows)`` writes rows to ``d/NAME``, beside pictures ``d/1.png`` to ``d/4.png`` of that grey; the
    folder above is the current one."""
    (tmp_path / "d").mkdir()
    monkeypatch.chdir(tmp_path)
    for number in range(1, 5):
        PILImage.new("RGB", (10, 10), (number,) * 3).save(tmp_path / "d" / f"{number}.png")

    def write(name, *rows):
        file = tmp_path / "d" / name
        file.parent.mkdir(exist_ok=True)
        text = json.dumps(rows) if name.endswith(".json") else "\n".join(json.dumps(row) for row in rows)
        file.write_text(text, encoding="utf-8")
        return f"d/{name}"

    return write
