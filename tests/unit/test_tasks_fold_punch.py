"""Folding by quarters of cells agrees with reflecting points as the words say."""

import re

import numpy as np
import pytest

from latent_reason import tasks
from latent_reason.tasks.fold_punch import apply_fold, cells_of, fold_map, solve


def reflected(point, fold):
    """Where a fold told in words takes a point (row, column), counted as cells are; None if it lies on the line."""
    part, line = re.match(r"Fold \d: the (.*) part is folded .* over the (.*)", fold).groups()
    y, x = point
    numbers = [int(v) for v in re.findall(r"\d+", line)]
    if line.startswith("line"):
        at, value = sum(numbers) / 2, x if "columns" in line else y
        back = (y, 2 * at - x) if "columns" in line else (2 * at - y, x)
        return back if (value > at) == (part in ("right", "bottom")) else point
    r, c = numbers[:2]
    slope = 1 if numbers[2] > r else -1  # the diagonal runs along x - c = slope (y - r)
    off = (x - c) - slope * (y - r)
    if off == 0:
        return None
    back = (r + slope * (x - c), c + slope * (y - r))
    return back if (off > 0) == part.endswith("right") else point


def holes_by_words(words):
    *folds, punches = re.findall(r"(?:Fold|Then)[^.]*", words)
    punched = {tuple(map(int, p)) for p in re.findall(r"\((\d),(\d)\)", punches)}
    found = []
    for cell in np.ndindex(8, 8):
        place = (cell[0] + 1, cell[1] + 1)
        start = place
        for fold in folds:
            place = place and reflected(place, fold)
        if place in punched:
            found.append(start)
    return found


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_holes_are_those_of_reflected_points(level):
    task = tasks.make("fold_punch", level=level, diagonal=1)
    for i in range(60):
        item = task[i]
        assert [tuple(c) for c in item.meta["holes"]] == holes_by_words(task.in_words(item)), item.id


def test_every_unfolding_brings_holes_and_paper():
    task = tasks.make("fold_punch", level=(3, 4), diagonal=3)
    for i in range(60):
        states = [task.shown(task[i]), *(step.state for step in task[i].steps)]
        holes = [len(cells_of(s["rows"])) for s in states]
        bare = ["".join(s["rows"]).count(".") for s in states]
        assert holes == sorted(set(holes)) and bare == sorted(bare, reverse=True) and bare[-1] == 0
        assert bare[0] > 0 and len(cells_of(states[-1]["rows"])) <= 16


def test_a_half_and_a_corner():
    folds = [{"to": "R", "at": 3}, {"to": "UL", "at": 9}]  # columns 1-3 over 4-6, then the lower right corner up
    last, half, whole = solve(6, folds, [[3, 3]])[::-1]
    assert last["rows"] == ["...###", "...###", "...###", "...o#A", "...#A.", "...A.."]
    assert half["rows"][3:] == ["...o##", "...###", "...##o"] and whole["rows"][5] == "o....o".replace(".", "#")
    assert cells_of(whole["rows"]) == [(4, 3), (4, 4), (6, 1), (6, 6)]


def test_a_flap_must_land_on_paper():
    where = np.arange(4 * 36)
    assert apply_fold(where, fold_map(6, "L", 2)) is None and apply_fold(where, fold_map(6, "L", 3)) is not None
    assert apply_fold(where, fold_map(6, "DR", 1)) is None, "too small a corner"


def test_an_unfolding_must_take_its_holes_along():
    task = tasks.make("fold_punch", level=2)
    item = task[0]
    before, after = task.shown(item), item.steps[0].state
    assert task.legal(item, before, "", after) and not task.legal(item, before, "", item.steps[1].state)
    fewer = {"rows": [row.replace("o", "#") for row in after["rows"]]}
    assert not task.legal(item, before, "", fewer) and not task.legal(item, None, "", after)
    assert task.parse_sketch(task.render_state(item, fewer), item.meta).faults == ("no hole",)


def test_answers():
    task = tasks.make("fold_punch")
    meta = {**task[0].meta, "holes": [[1, 2], [3, 4]]}
    for text, partial in {
        "(1,2),(3,4)": 1,
        "(3, 4); (1,2) and (1,2).": 1,
        "(1,2)": 0.5,
        "(1,2),(3,4),(8,8)": 2 / 3,
        "row 1": 0,
        "(1,2),(3,4),x": 0,
        "": 0,
    }.items():
        assert task.check(f"\\boxed{{{text}}}", meta).partial == pytest.approx(partial), text


def test_sheets_and_levels_outside_are_refused():
    for options in ({"level": 6}, {"level": 0}, {"n": 10}):
        with pytest.raises(ValueError):
            tasks.make("fold_punch", **options)
