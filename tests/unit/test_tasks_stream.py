"""Items are pure functions of their key; boards never cross a split."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from latent_reason import tasks
from latent_reason.tasks.stream import Stream, bucket, canon, excluded, is_excluded, split_of


def fingerprint(item) -> str:
    """Everything an item holds but its pictures, whose bytes depend on the skin that is installed."""
    words = [item.id, item.state, item.question, [(s.text, s.state, s.redundant) for s in item.steps], item.answer]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]


def pixels(item) -> list[bytes]:
    return [image.tobytes() for image in [*item.images, *(s.sketch for s in item.steps if s.sketch)]]


def test_vectors_of_the_stream():
    key = ("frozenlake_plan", 1, "train", 0, 4, 7, 0)
    assert Stream("latent_reason/1|frozenlake_plan|1|train|0|4|7|0").word() == 2205698295443953810
    stream = Stream.of(*key)
    assert [stream.below(10) for _ in range(10)] == [0, 2, 5, 9, 8, 4, 1, 1, 9, 1]


def test_stream_goes_on_after_a_page_and_shuffles():
    stream = Stream("x")
    assert len({stream.word() for _ in range(2000)}) == 2000
    assert sorted(stream.shuffle(range(50))) == list(range(50))
    assert 0.4 < sum(stream.unit() for _ in range(1000)) / 1000 < 0.6
    assert {stream.between(1, 3) for _ in range(100)} == {1, 2, 3}


def test_vectors_of_identity():
    name = canon("grid_board/1", {"map": ["FGF", "FFF", "FSF"]})
    assert name == 'grid_board/1:{"map":["FGF","FFF","FSF"]}'
    assert hashlib.sha256(name.encode()).hexdigest().startswith("69cdb948010317913929e7ca")
    assert (bucket(name), split_of(name)) == (489, "train")


PINNED = {  # a change here needs a new version of the task
    "frozenlake_plan": ["79565968eeafd1d1", "c16ed9b6fd96fc1d", "c0a088268931d30b", "edf26e29cc96df1a"],
    "plan_check": ["01716db80b4c45f5", "8f219c6af5a8ed1b", "c39aadc188b6ee47", "1ec26706e97955f2"],
}


@pytest.mark.parametrize("name", PINNED)
def test_content_is_pinned(name):
    task = tasks.make(name, level=(4, 5), seed=3)
    assert [fingerprint(task[i]) for i in range(4)] == PINNED[name]


@pytest.mark.parametrize("name", ["frozenlake_plan", "plan_check"])
def test_order_of_access_does_not_matter(name):
    forward, backward = (tasks.make(name, level=(3, 4, 5)) for _ in range(2))
    there = [forward[i] for i in range(6)]
    back = [backward[i] for i in reversed(range(6))][::-1]
    assert list(map(fingerprint, there)) == list(map(fingerprint, back))
    assert list(map(pixels, there)) == list(map(pixels, back))
    assert [i.level for i in there] == [3, 4, 5, 3, 4, 5]


def test_processes_agree():
    script = (
        "import sys; sys.path.insert(0, 'tests/unit')\nfrom test_tasks_stream import fingerprint, tasks\n"
        "print([fingerprint(tasks.make(n)[9]) for n in tasks.names()])"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    said = subprocess.run(
        [sys.executable, "-c", script],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": root},
    ).stdout
    assert eval(said) == [fingerprint(tasks.make(n)[9]) for n in tasks.names()]


def test_splits_share_no_board_and_leave_the_benchmark_out():
    seen = {}
    for name in ("frozenlake_plan", "plan_check"):
        for split, count in (("train", 300), ("val", 20), ("test", 20)):
            task = tasks.make(name, split=split, level=5, seed=1)
            for i in range(count):
                board = task.canon(task.puzzle(5, i))
                assert split_of(board) == split == seen.setdefault(board, split)
                assert split == "test" or not is_excluded(board)
    assert len(excluded()) == 790


def test_take_brings_distinct_boards():
    task = tasks.make("frozenlake_plan", level=3)
    assert len({task.canon(item.state) for item in task.take(60)}) == 60
    assert [item.id for item in task.take(5)][:1] == ["frozenlake_plan.v1-train-L3-s0-0000000"]
    with pytest.raises(ValueError, match="too few puzzles"):
        tasks.make("frozenlake_plan", level=3, length=(5, 5)).take(60, patience=8)


def test_names_and_errors():
    assert tasks.names() == sorted(
        [
            "frozenlake_plan",
            "plan_check",
            "wall_maze",
            "scene_edit",
            "fold_punch",
            "blocks",
            "slide",
            "rush_hour",
            "transform",
            "ray",
            "jigsaw",
            "dice_net",
            "cube_net",
            "search_zoom",
            "shortest_ways",
        ]
    )
    with pytest.raises(ValueError, match="Did you mean 'plan_check'"):
        tasks.make("plan_chekc")
    with pytest.raises(ValueError, match="unknown split"):
        tasks.make("plan_check", split="dev")
    with pytest.raises(ValueError, match="dist is uniform or vsp"):
        tasks.make("frozenlake_plan", dist="normal")
    with pytest.raises(ValueError, match="size of the board, 3 to 10"):
        tasks.make("frozenlake_plan", level=(4, 11))
    with pytest.raises(ValueError, match="at least 1"):
        tasks.make("plan_check", level=0)


def test_hopeless_targets_are_named(monkeypatch):
    monkeypatch.setattr("latent_reason.tasks.base.ATTEMPTS", 200)
    with pytest.raises(RuntimeError, match=r"split val, seed 0, level 3, item 5.*other split"):
        tasks.make("frozenlake_plan", split="val", level=3, length=(8, 8))[5]
