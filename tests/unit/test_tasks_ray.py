"""Rays among mirrors: exits against another way to follow them, rules by hand, and what a sketch may break."""

import pytest

from latent_reason import tasks
from latent_reason.tasks import ray

BOARD = {"map": ["/.\\", "...", "\\./"], "entry": "W3"}


def followed(board):
    """The exit and the number of mirrors met, with headings as complex numbers (y points up): "/" turns d into i times
    its conjugate, "\\" into minus that."""
    rows, n = board["map"], len(board["map"])
    side, k = board["entry"][0], int(board["entry"][1:]) - 1
    place = {"N": complex(k, 1), "S": complex(k, -n), "W": complex(-1, -k), "E": complex(n, -k)}[side]
    way = {"N": -1j, "S": 1j, "W": 1, "E": -1}[side]
    met = 0
    for _ in range(4 * n * n + 1):
        place += way
        x, y = int(place.real), int(-place.imag)
        if not (0 <= x < n and 0 <= y < n):
            return {-1j: f"S{x + 1}", 1j: f"N{x + 1}", -1: f"W{y + 1}", 1: f"E{y + 1}"}[way], met
        met += rows[y][x] != "."
        way = {"/": 1j * way.conjugate(), "\\": -1j * way.conjugate(), ".": way}[rows[y][x]]
    raise AssertionError("the ray never leaves")


@pytest.mark.parametrize("options", [{}, {"n": 8}, {"level": (9, 12)}])
def test_exits_agree_with_another_solver(options):
    task = tasks.make("ray", **options)
    for i in range(200):
        item = task[i]
        assert followed(item.meta["board"]) == (item.answer, item.level)


def test_every_ray_leaves_and_comes_back_from_its_exit():
    for i in range(40):
        board = tasks.make("ray")[i].meta["board"]
        exits = {port: ray.solve({**board, "entry": port})[1] for port in ray.ports(6)}
        assert all(exits[exits[port]] == port != exits[port] for port in exits)


def test_a_ray_by_hand():
    states, answer = ray.solve(BOARD)
    assert answer == "S1"
    assert states == [{"hits": [[2, 0]], "heading": "S"}]
    states, answer = ray.solve({"map": ["/.\\", "...", "\\./"], "entry": "E3"})
    assert answer == "S3" and states == [{"hits": [[2, 2]], "heading": "S"}]
    states, answer = ray.solve({"map": ["/.\\", "...", "\\.."], "entry": "S3"})
    assert [s["heading"] for s in states] == ["W", "S", "E"] and answer == "E3"


def test_answers_are_read_and_half_is_for_the_side():
    task, meta = tasks.make("ray"), {"exit": "E3"}
    for said, partial in (("E3", 1), (" e 3 ", 1), ("E4", 0.5), ("W3", 0), ("E33", 0), ("E٣", 0), ("3", 0), ("E0", 0)):
        assert task.check(f"\\boxed{{{said}}}", meta).partial == partial, said


@pytest.mark.parametrize("skin", ["plain", "other"])
def test_broken_sketches_are_named(skin):
    board = {"map": ["/.\\", "...", "\\.."], "entry": "S3"}
    state = ray.solve(board)[0][1]
    assert ray.parse(ray.render(board, skin, state), board, skin).state == state
    more = {**board, "map": ["/.\\", "./.", "\\.."]}
    assert ray.parse(ray.render(more, skin, state), board, skin).faults == ("1 cells changed",)
    away = ray.render({**board, "entry": "N2"}, skin, {"hits": [[0, 1]], "heading": "S"})
    assert "the ray enters elsewhere" in ray.parse(away, board, skin).faults
    against = {**state, "heading": "N"}
    assert ray.parse(ray.render(board, skin, against), board, skin).faults == (
        "the line does not lead from the entry to the blue arrow",
    )
    assert not ray.parse(ray.render(board, skin), board, skin).valid


def test_what_cannot_be_is_refused():
    for options in ({"level": 13}, {"level": 0}, {"n": 10}, {"density": (0.5, 0.2)}, {"level": 6, "n": 4}, {"n": 3}):
        with pytest.raises(ValueError, match=next(iter(options))):
            tasks.make("ray", **options)
