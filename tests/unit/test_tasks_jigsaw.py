"""The jigsaw's solver against all assemblies, its twin against the picture, and faults of sketches."""

from __future__ import annotations

import re
from itertools import permutations

import numpy as np
import pytest

from latent_reason import tasks
from latent_reason.tasks.jigsaw import cost, edge_costs, is_unique, scene, tiles_of


def brute(tiles, grid, margin=0.05):
    """As ``unique``, with every assembly looked at."""
    right, below = (np.array(c) for c in edge_costs(tiles))
    orders = np.array(list(permutations(range(grid * grid))))
    paid = np.zeros(len(orders), int)
    for k in range(grid * grid):
        if k % grid:
            paid += right[orders[:, k - 1], orders[:, k]]
        if k >= grid:
            paid += below[orders[:, k - grid], orders[:, k]]
    return (paid[1:] > paid[0] * (1 + margin) + 168 // grid // 4).all()


@pytest.mark.parametrize("texture", ["bands", "rings"])
def test_uniqueness_agrees_with_all_orders_of_four_tiles(texture):
    found = [(is_unique(t, 2, 0.05), brute(t, 2)) for t in (tiles_of(scene(s, texture), 2) for s in range(300))]
    assert all(mine == all_orders for mine, all_orders in found) and len(set(found)) == 2


def test_uniqueness_agrees_with_all_orders_of_nine_tiles():
    for seed in range(4):
        tiles = tiles_of(scene(seed, "bands"), 3)
        assert is_unique(tiles, 3, 0.05) == brute(tiles, 3)


def test_one_colour_is_not_unique():
    assert not is_unique(tiles_of(np.zeros((168, 168), np.uint8), 3), 3, 0.05)


def test_the_answer_puts_the_scene_together():
    task = tasks.make("jigsaw")
    for i in range(20):
        meta = task[i].meta
        tiles = tiles_of(scene(meta["scene"], meta["texture"]), meta["grid"])
        shown = tiles[meta["order"]]
        assert (shown[np.array(meta["gold"]) - 1] == tiles).all() and meta["order"] != sorted(meta["order"])


def test_the_words_hold_what_the_edges_show():
    """Edges rebuilt from the twin give the same costs as those of the tiles."""
    task = tasks.make("jigsaw", level=3)
    item = task[0]
    sides = [re.split(r"[:;]", line)[1:] for line in task.in_words(item).rstrip(".").split(".\n")[1:]]
    edges = [
        [
            np.array([c for c, n in re.findall(r"(\w+) (\d+)", part.split(maxsplit=1)[1]) for _ in range(int(n))])
            for part in tile
        ]
        for tile in sides
    ]
    right = [[int((a[1] != b[3]).sum()) for b in edges] for a in edges]
    below = [[int((a[2] != b[0]).sum()) for b in edges] for a in edges]
    gold = [n - 1 for n in item.meta["gold"]]
    tiles = tiles_of(scene(item.meta["scene"], item.meta["texture"]), 3)
    assert cost(gold, right, below, 3) == cost(list(range(9)), *edge_costs(tiles), 3)


def test_faults_and_places():
    task = tasks.make("jigsaw", level=2)
    item = task[0]
    gold = item.meta["gold"]
    twice = task.render_state(item, {"placed": [gold[0], gold[0]], "places": 4})
    assert task.parse_sketch(twice, item.meta).faults == ("a tile lies twice",)
    swapped = ",".join(map(str, [gold[1], gold[0], *gold[2:]]))
    assert task.check(f"\\boxed{{{swapped}}}", item.meta).partial == 0.5
    assert task.check(f"\\boxed{{{item.answer},1}}", item.meta).partial == 0.8
    with pytest.raises(ValueError, match="tiles per side"):
        tasks.make("jigsaw", level=5)
