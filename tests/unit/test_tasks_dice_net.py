"""The rolling die against rotation matrices, and what a sketch of a die must not show."""

from __future__ import annotations

import numpy as np
import pytest

from latent_reason import tasks
from latent_reason.tasks.dice_net import opposites, roll_die

UP, FRONT, RIGHT = (0, 0, 1), (0, -1, 0), (1, 0, 0)  # x to the east, y to the north
TURNS = {
    "east": [[0, 0, 1], [0, 1, 0], [-1, 0, 0]],
    "west": [[0, 0, -1], [0, 1, 0], [1, 0, 0]],
    "north": [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
    "south": [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
}


def by_matrices(meta):
    """(top, front, right) after each roll: every face is a vector that a quarter turn moves."""
    start, opposite = meta["start"], opposites(meta["pairs"])
    faces = {}
    for way, name in ((UP, "top"), (FRONT, "front"), (RIGHT, "right")):
        faces[way], faces[tuple(-v for v in way)] = start[name], opposite[start[name]]
    for move in meta["moves"]:
        faces = {tuple(int(v) for v in np.array(TURNS[move]) @ way): number for way, number in faces.items()}
        yield faces[UP], faces[FRONT], faces[RIGHT]


@pytest.mark.parametrize("options", [{}, {"level": (10, 16)}, {"level": (6, 8), "kinds": (4, 4)}])
def test_rolls_agree_with_rotation_matrices(options):
    task = tasks.make("dice_net", **options)
    for i in range(150 if not options else 20):
        item = task[i]
        told = list(by_matrices(item.meta))
        assert [(s.state["top"], s.state["front"], s.state["right"]) for s in item.steps] == told
        assert item.answer == str(told[-1][0])
        assert len(item.meta["moves"]) == item.level
        assert all(0 <= v < task.n for s in item.steps for v in s.state["cell"])


def test_a_roll_by_hand():
    start = {"cell": [1, 1], "top": 1, "front": 2, "right": 3}
    opposite = {1: 6, 6: 1, 2: 5, 5: 2, 3: 4, 4: 3}
    assert roll_die(start, "north", opposite) == {"cell": [0, 1], "top": 2, "front": 6, "right": 3}
    assert roll_die(start, "east", opposite) == {"cell": [1, 2], "top": 4, "front": 2, "right": 1}
    for way, back in (("north", "south"), ("east", "west")):
        assert roll_die(roll_die(start, way, opposite), back, opposite) == start


def test_faults_are_named():
    task = tasks.make("dice_net", level=2)
    item, other = task[0], task[1]
    state = item.steps[0].state
    opposite = opposites(item.meta["pairs"])
    bad = task.render_state(item, {**state, "front": opposite[state["top"]]})
    assert any("opposite" in fault for fault in task.parse_sketch(bad, item.meta).faults)
    assert item.meta["pairs"] != other.meta["pairs"]
    assert any("pairs" in fault for fault in task.parse_sketch(other.images[0], item.meta).faults)


def test_levels_that_do_not_exist():
    for options in ({"level": 0}, {"level": 50}, {"n": 4}, {"kinds": (4, 4), "level": 3}):
        with pytest.raises(ValueError, match=r"level|^n is"):
            tasks.make("dice_net", **options)
