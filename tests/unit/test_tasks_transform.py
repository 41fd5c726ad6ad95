"""Shapes agree with matrices that act on points; variants ask about the same changes."""

from collections import Counter

import numpy as np
import pytest

from latent_reason import tasks
from latent_reason.tasks.stream import Stream
from latent_reason.tasks.transform import TURNS, apply_step, cropped, filled, orbit, overlap, polyomino, solve, steps_in

MATRICES = {
    "90": [[0, 1], [-1, 0]],
    "180": [[-1, 0], [0, -1]],
    "270": [[0, -1], [1, 0]],  # on (y, x), y down
    "vertical": [[1, 0], [0, -1]],
    "horizontal": [[-1, 0], [0, 1]],
}


def by_matrices(rows, steps):
    points = np.array(sorted(filled(rows)))
    for step in steps:
        points = points @ np.array(MATRICES[step]).T
    return cropped(set(map(tuple, points.tolist())))


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5, 6])
def test_answers_are_those_of_matrices(level):
    task = tasks.make("transform", level=level)
    for i in range(100):
        item = task[i]
        shapes = [step.state["rows"] for step in item.steps]
        assert shapes == [by_matrices(item.state["rows"], item.state["steps"][: k + 1]) for k in range(level)]
        assert item.answer == "/".join(shapes[-1]) and item.state["rows"] not in shapes
        assert steps_in(item.question) == item.state["steps"] == steps_in(" ".join(s.text for s in item.steps))


def test_steps_by_hand():
    corner = ["10", "10", "11"]
    assert apply_step(corner, "90") == ["111", "100"] and apply_step(corner, "270") == ["001", "111"]
    assert apply_step(corner, "vertical") == ["01", "01", "11"] and apply_step(corner, "horizontal") == [
        "11",
        "10",
        "10",
    ]
    assert solve(corner, ["vertical", "90"])[-1] == ["100", "111"]


def test_shapes_are_whole_and_unlike_their_images():
    task, sizes = tasks.make("transform"), Counter()
    for i in range(150):
        rows = task.puzzle(2, i)["rows"]
        sizes[len(cells := filled(rows))] += 1
        reached, front = set(), [min(cells)]
        while front:
            y, x = front.pop()
            if (y, x) in cells - reached:
                reached.add((y, x))
                front += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        assert reached == cells and len({tuple(r) for r in orbit(rows)}) == 8
    assert set(sizes) == set(range(4, 10)) and min(sizes.values()) > 10


def test_one_option_of_four_is_the_result():
    task, letters = tasks.make("transform", variant="pick", level=(2, 3, 6)), Counter()
    for i in range(150):
        item = task[i]
        options, shapes = item.state["options"], [step.state["rows"] for step in item.steps]
        letters[item.answer] += 1
        assert options["ABCD".index(item.answer)] == shapes[-1] and len({tuple(o) for o in options}) == 4
        assert not any(shape in options for shape in shapes[:-1])
        assert item.steps[-1].sketch is None and len(item.images) == 5 and item.meta["mcq"]
    assert min(letters.values()) > 20


def test_same_or_mirror():
    task, answers = tasks.make("transform", variant="mirror"), Counter()
    for i in range(150):
        item = task[i]
        same = item.state["second"] in [apply_step(item.state["rows"], turn) for turn in TURNS]
        answers[item.answer] += 1
        assert item.answer == ("same" if same else "mirror") and len(item.steps) == item.level
        assert item.state["second"] in orbit(item.state["rows"])
    assert min(answers.values()) > 50


@pytest.mark.parametrize("variant", ["pick", "mirror"])
def test_variants_keep_the_contract(variant):
    task = tasks.make("transform", variant=variant)
    for item in (task[i] for i in range(12)):
        drawn = [step for step in item.steps if step.sketch is not None]
        assert task.check(task.trace(item, "mixed").assistant_text(), item.meta).ok
        assert not any(task.check(f"\\boxed{{{answer}}}", item.meta).ok for answer in [*task.wrong(item), ""])
        report = task.sketch_report([s.sketch for s in drawn], item, [s.text for s in drawn])
        assert not drawn or report["valid"] == report["equal"] == report["legal"] == 1
        assert all(step.sketch.size == item.images[-1].size for step in drawn)
        assert task.check(task.text_twin(item).assistant_text(), item.meta).ok
        assert all(0 <= v <= 1 for v in task.score("٣ \\boxed{{", item.meta).values())


def test_answers_may_be_padded_and_are_else_exact():
    task = tasks.make("transform")
    meta = {**task[0].meta, "rows": ["011", "110", "010"], "answer": "011/110/010"}
    for text, partial in {
        "011/110/010": 1,
        "0000/0011/0110/0010": 1,
        "011, 110\n010": 1,
        "11/10": 3 / 5,
        "110/011/010": 3 / 7,
        "0": 0,
        "": 0,
        "012": 0,
        "1" * 40: 0,
        "٠١١/١١٠": 0,
    }.items():
        assert task.check(f"\\boxed{{{text}}}", meta).partial == pytest.approx(partial), text
    assert task.score("\\boxed{110/011/010}", meta)["shape"] == 1
    for i in range(50):
        one, other = (polyomino(6, Stream.of("overlap", i, k)) for k in "ab")
        assert (overlap(one, other) == 1) == (one == other)


def test_another_shape_is_a_fault():
    task = tasks.make("transform")
    item = task[0]
    assert task.parse_sketch(task.render_state(item, {"rows": ["11", "11"]}), item.meta).faults == ("another shape",)
    assert task.parse_sketch(task.render_state(item, {"rows": ["0"]}), item.meta).faults == ("no shape",)


@pytest.mark.parametrize(
    "options", [{"level": 7}, {"variant": "mirror", "level": 4}, {"variant": "voxel"}, {"cells": (3, 9)}]
)
def test_what_is_not_possible_is_refused(options):
    with pytest.raises(ValueError):
        tasks.make("transform", **options)
