"""Mazes of walls: plans against a brute-force solver, the rules of each kind of action, and what a sketch may break."""

from itertools import product

import numpy as np
import pytest

from latent_reason import tasks
from latent_reason.tasks import wall_maze as wm
from latent_reason.tasks.canvas import LOOKS

MAZE = {"right": ["11", "00", "11"], "down": ["101", "001"], "start": [0, 0], "heading": "N", "goal": [2, 0]}


def brute(maze, kind):
    """Length and number of shortest plans by powers of a table of actions, on the drawn walls."""
    picture = np.asarray(wm.render(maze, LOOKS["plain"]))
    height, width = picture.shape[0] // 32, picture.shape[1] // 32
    steps = [(-1, 0), (0, 1), (1, 0), (0, -1)]

    def free(r, k, way):
        y, x = steps[way]
        return picture[32 * r + 16 + 15 * y, 32 * k + 16 + 15 * x].any()

    nodes = list(product(range(height), range(width), range(4)))
    number = {node: i for i, node in enumerate(nodes)}
    table = np.zeros((len(nodes), len(nodes)), int)
    for r, k, way in nodes:
        if kind == "absolute":
            after = [(r + steps[w][0], k + steps[w][1], w) for w in range(4) if free(r, k, w)]
        else:
            after = [(r, k, (way + 1) % 4), (r, k, (way - 1) % 4)]
            after += [(r + steps[way][0], k + steps[way][1], way)] * bool(free(r, k, way))
        for node in after:
            table[number[r, k, way], number[node]] += 1
    ways = np.zeros(len(nodes), int)
    ways[number[(*maze["start"], "NESW".index(maze["heading"]))]] = 1
    for length in range(len(nodes)):
        if count := sum(ways[number[(*maze["goal"], way)]] for way in range(4)):
            return length, count
        ways = ways @ table
    return None


@pytest.mark.parametrize("kind", ["turn", "absolute"])
@pytest.mark.parametrize("loops", [0, 3])
def test_solver_agrees_with_brute_force(kind, loops):
    task = tasks.make("wall_maze", actions=kind, loops=loops)
    for i in range(100):
        maze = task[i].meta["maze"]
        plan, ways = wm.solve(maze, kind)
        assert (len(plan), ways) == brute(maze, kind)
        state, hits = wm.walk(maze, plan, kind)
        assert state["cells"][-1] == maze["goal"] and not hits


def test_trees_have_one_passage_less_than_cells():
    for i in range(50):
        item = tasks.make("wall_maze")[i]
        maze, (height, width) = item.meta["maze"], wm.SIZES[item.level]
        assert sum(row.count("1") for row in maze["right"] + maze["down"]) == height * width - 1
        assert len(wm.distances(maze, (0, 0))) == height * width


@pytest.mark.parametrize(
    ("kind", "plan"),
    [
        ("turn", "left,left,forward,forward"),
        ("junction", "right,forward,right,forward,right,forward"),
        ("absolute", "R,R,D,D,L,L"),
    ],
)
def test_rules_of_each_kind_of_action(kind, plan):
    maze = {**MAZE, "down": ["101", "101"]} if kind == "turn" else MAZE
    task = tasks.make("wall_maze", actions=kind)
    found, _ = wm.solve(maze, kind)
    assert ",".join(found) == plan
    meta = {"maze": maze, "actions": kind, "plan": found, "optimum": len(found)}
    assert task.check(f"\\boxed{{{plan}}}", meta).ok
    past = ",".join([*found, found[-1]])  # a wall is behind the goal
    assert task.check(f"\\boxed{{{past}}}", meta).reason == "met a wall"
    assert task.score(f"\\boxed{{{past}}}", meta) == {"success": 0, "exact": 0, "label": 1, "progress": 1}


def test_a_detour_is_right_but_not_exact_and_words_around_actions_are_read():
    task, found = tasks.make("wall_maze"), ["left", "left", "forward", "forward"]
    maze = {**MAZE, "down": ["101", "101"]}
    meta = {"maze": maze, "actions": "turn", "plan": found, "optimum": 4}
    said = "\\boxed{turn right, Turn right, go forward; go forward}"
    assert task.score(said, meta) == {"success": 1, "exact": 1, "label": 0, "progress": 0}
    said = "\\boxed{left,right,left,left,forward,forward}"
    assert task.score(said, meta) == {"success": 1, "exact": 0, "label": 0, "progress": 0.25}


def test_the_path_takes_back_its_loops():
    state, _ = wm.walk(MAZE, ["R", "R", "L"], "absolute")
    assert state == {"cells": [[0, 0], [0, 1]], "heading": "W"}


@pytest.mark.parametrize("skin", ["plain", "other"])
def test_broken_sketches_are_named(skin):
    look, state = LOOKS[skin], {"cells": [[0, 0], [0, 1]], "heading": "E"}
    assert wm.parse(wm.render(MAZE, look, state), MAZE, look).state == state
    more = {**MAZE, "right": ["11", "10", "11"]}
    assert wm.parse(wm.render(more, look, state), MAZE, look).faults == ("1 walls changed",)
    away = {**MAZE, "goal": [2, 1]}
    assert wm.parse(wm.render(away, look, state), MAZE, look).faults == ("the goal is not where it was",)
    torn = {"cells": [[1, 2], [2, 2]], "heading": "S"}
    assert (
        "the path does not lead from the start to the arrow" in wm.parse(wm.render(MAZE, look, torn), MAZE, look).faults
    )
    assert wm.parse(wm.render(MAZE, look), MAZE, look).faults == ("0 blue arrows",)


def test_what_cannot_be_is_refused():
    for options in ({"level": 9}, {"actions": "jump"}, {"loops": 5}, {"loops": -1}):
        with pytest.raises(ValueError, match=next(iter(options))):
            tasks.make("wall_maze", **options)
