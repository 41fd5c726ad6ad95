"""Cube nets against a die that rolls over them, and against all pieces of six squares."""

from __future__ import annotations

import pytest

from latent_reason import tasks
from latent_reason.tasks.cube_net import HELD, LETTERS, NETS, apply_symmetry, assign_slots, cells, folds, state_of
from latent_reason.tasks.dice_net import WAYS, roll_die
from latent_reason.tasks.item import TURNS

OPPOSITE = {1: 6, 6: 1, 2: 5, 5: 2, 3: 4, 4: 3}


def stamped(squares, start):
    """The face of a die that touches each square when it rolls over the piece from ``start``, faces numbered 1 to 6."""
    found = {}
    stack = [{"cell": list(start), "top": 1, "front": 2, "right": 3}]
    while stack:
        die = stack.pop()
        if tuple(die["cell"]) in squares and tuple(die["cell"]) not in found:
            found[tuple(die["cell"])] = OPPOSITE[die["top"]]
            stack += [roll_die(die, way, OPPOSITE) for way in WAYS]
    return found


def shape(squares):
    return min(tuple(sorted(apply_symmetry(list(squares), way))) for way in range(8))


def test_the_list_holds_all_nets_of_a_cube():
    pieces = {((0, 0),)}
    for _ in range(5):
        pieces = {
            shape([*piece, (r + y, c + x)])
            for piece in pieces
            for r, c in piece
            for y, x in WAYS.values()
            if (r + y, c + x) not in piece
        }
    assert len(pieces) == 35
    nets = {piece for piece in pieces if len(set(stamped(set(piece), piece[0]).values())) == 6}
    assert nets == {shape(cells(n)) for n in range(len(NETS))} and len(nets) == len(NETS) == 11


@pytest.mark.parametrize("options", [{}, {"nets": "held", "level": (3, 4, 5)}])
def test_folding_agrees_with_rolling(options):
    task = tasks.make("cube_net", **options)
    for i in range(200):
        item = task[i]
        net = {tuple(cell): letter for letter, cell in item.meta["net"].items()}
        faces = stamped(set(net), item.meta["net"][item.meta["face"]])
        number = {1: "lid", 6: "bottom", 2: "south", 5: "north", 3: "east", 4: "west"}
        assert {net[cell]: number[face] for cell, face in faces.items()} == assign_slots(
            item.meta["net"], item.meta["face"]
        )
        assert net[next(cell for cell, face in faces.items() if face == 1)] == item.answer
        assert (shape(net) in {shape(cells(n)) for n in HELD}) == bool(options) and len(folds(item.meta)) == item.level


def test_a_row_of_four_by_hand():
    puzzle = {"net": {"A": [0, 0], "B": [1, 0], "C": [1, 1], "D": [1, 2], "E": [1, 3], "F": [2, 0]}, "face": "B"}
    assert assign_slots(puzzle["net"], "B") == {
        "A": "north",
        "B": "bottom",
        "C": "east",
        "D": "lid",
        "E": "west",
        "F": "south",
    }
    assert state_of(puzzle, "AC") == {"slots": "BAC..."}


def test_faults_are_named():
    task = tasks.make("cube_net")
    item, other = task[0], task[1]
    assert not task.parse_sketch(other.steps[0].sketch, item.meta).valid
    twice = task.render_state(item, {"slots": LETTERS[0] * 2 + "...."})
    assert "a letter lies twice on the cube" in task.parse_sketch(twice, item.meta).faults
    with pytest.raises(ValueError, match="2 to 5 folds"):
        tasks.make("cube_net", level=6)


def test_opposite_letters_stay_so_however_the_net_is_turned():
    task = tasks.make("cube_net")
    for i in range(20):
        item = task[i]
        letters, squares = zip(*item.meta["net"].items(), strict=True)
        for way in range(8):
            net = dict(zip(letters, apply_symmetry(list(squares), way), strict=True))
            assert folds({"net": net, "face": item.meta["face"]})[-1] == (item.answer, "lid")
        assert all(task.turned(item, turn).answer == item.answer for turn in TURNS)
