"""The file of a comparison: continued by the same comparison only, by one process at a time."""

from __future__ import annotations

import json

import pytest
from tiny_runs import recipe

from train.results_file import Results, summary_of

ABOUT = {"schema": 1, "command": "python -m train.compare --seeds [0]", "steps": 3, "levels": (3,)}


@pytest.fixture
def opened(tmp_path):
    """``opened(**changes of about)``: what another call would have; recipes differ where ``lr`` does."""
    config = recipe(tmp_path)

    def open_again(config=config, **about):
        return Results(tmp_path / "a.json", ABOUT | about, {("arm", 0): config}, None, "arm")

    first = open_again()
    first.add("arm", 0, config, {"n": 1})
    first.close()
    return open_again


def test_a_comparison_is_continued(opened, tmp_path):
    again = opened(command="python -m train.compare --seeds [0,1]")
    assert [row["arm"] for row in again.rows] == ["arm"]
    assert not again.is_wanted("arm", 0) and again.is_wanted("arm", 1)
    with pytest.raises(BlockingIOError, match="in use by another process"):
        opened()
    again.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    opened(config=recipe(tmp_path / "elsewhere", accelerator="auto")).close()


def test_another_comparison_is_refused(opened, tmp_path):
    before = (tmp_path / "a.json").read_bytes()
    for change, sentence in (
        ({"steps": 4}, "which differs in steps"),
        ({"levels": [3, 4], "steps": 4}, "which differs in steps, levels"),
        ({"command": "python -m train.rl.compare"}, "is not the JSON of python -m train.rl.compare"),
        ({"config": recipe(tmp_path, optim__max_steps=9)}, "has arm 'arm', seed 0, of another recipe"),
    ):
        with pytest.raises(ValueError, match=sentence):
            opened(**change)
    assert (tmp_path / "a.json").read_bytes() == before
    with pytest.raises(OSError, match="cannot be written"):
        Results(tmp_path / "a.json" / "b.json", ABOUT, {}, None, "arm")
    for other in ([1], {"command": "python -m train.compare", "results": [{"task": "t", "seed": 1}]}):
        (tmp_path / "a.json").write_text(json.dumps(other))
        with pytest.raises(ValueError, match=r"a\.json' is not the JSON of python -m train\.compare"):
            opened()


def test_a_row_is_one_line_on_the_console():
    row = {
        "n": 200,
        "success": {"value": 0.735, "low": 0.67, "high": 0.79},
        "right": "01" * 100,
        "probes": {"noise": {"accuracy": 0.1}},
        "curves": {"reward": [[0, 1.0]]},
        "verdict": "No evidence.",
    }
    assert summary_of(row) == "n 200  success 0.735  No evidence."


def test_only_that_fits_no_variant_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no arm has 'dirct' in its name\. Did you mean 'direct'"):
        Results(tmp_path / "a.json", ABOUT, {("direct", 0): recipe(tmp_path)}, "dirct", "arm")
    assert not (tmp_path / "a.json").exists()
