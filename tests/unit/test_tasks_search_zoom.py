"""The answer read off the picture by another route, and what a box and a part must hold."""

import numpy as np
import pytest
from PIL import Image

from latent_reason import tasks
from latent_reason.tasks import search_zoom
from latent_reason.tasks.canvas import LOOKS


def seen(item):
    """All things, read from the pixels of the problem's picture by exact comparison of cells."""
    cell, side = LOOKS[item.meta["skin"]].cell, item.meta["side"]
    known = {
        tile.tobytes(): name
        for tile, name in zip(search_zoom.sprites(item.meta["skin"]), search_zoom.NAMES, strict=True)
    }
    grid = np.asarray(item.images[0])
    cells = {
        (y, x): known[grid[y * cell : (y + 1) * cell, x * cell : (x + 1) * cell].tobytes()].split()
        for y in range(side)
        for x in range(side)
    }
    return {at: thing for at, thing in cells.items() if thing}


@pytest.mark.parametrize("options", [{}, {"side": 32}, {"skin": "other", "level": 5}, {"pairs": "held_out"}])
def test_the_answer_is_in_the_picture_and_one(options):
    task = tasks.make("search_zoom", **options)
    for index in range(20 if options else 200):
        item = task[index]
        things, query = seen(item), item.meta["query"]
        words = query["what"].replace("with the letter ", "").split()
        [(y, x)] = [at for at, thing in things.items() if set(words) <= set(thing)]
        if query["kind"] == "neighbour":
            down, right = {"above": (-1, 0), "below": (1, 0), "left of": (0, -1), "right of": (0, 1)}[query["way"]]
            y, x = y + down, x + right
        assert item.answer == things[y, x][0 if query["kind"] == "colour" else 2]
        top, left = item.steps[0].state["box"]
        assert top <= y + 1 < top + 4 and left <= x + 1 < left + 4, "the part holds what is asked for"
        assert len(things) == (40 + 20 * item.level) * task.side**2 // 256


def test_the_part_is_a_crop_of_the_picture():
    for options in ({}, {"skin": "other"}, {"side": 32}):
        item = tasks.make("search_zoom", **options)[0]
        cell = LOOKS[item.meta["skin"]].cell
        top, left = (cell * (at - 1) for at in item.steps[0].state["box"])
        crop = item.images[0].crop((left, top, left + 4 * cell, top + 4 * cell))
        assert crop.resize(item.images[0].size, Image.Resampling.NEAREST).tobytes() == item.steps[1].sketch.tobytes()
        wide = item.images[0].width
        assert tasks.make("search_zoom", **options).box(item) == tuple(
            side / wide for side in (left, top, left + 4 * cell, top + 4 * cell)
        )
        assert all(step.redundant for step in item.steps)


def test_training_never_asks_about_held_out_pairs():
    train, ood = tasks.make("search_zoom"), tasks.make("search_zoom", pairs="held_out")

    def pair(item):
        return tuple(search_zoom.solve(item.meta)[0][0][2].split()[:2])

    assert not {pair(train[i]) for i in range(100)} & search_zoom.HELD_OUT
    assert {pair(ood[i]) for i in range(30)} == search_zoom.HELD_OUT


def test_another_canvas_or_part_is_no_valid_sketch():
    task = tasks.make("search_zoom")
    one, other = task[0], task[3]
    for step in other.steps:
        assert task.parse_sketch(step.sketch, other.meta).valid and not task.parse_sketch(step.sketch, one.meta).valid
    report = task.sketch_report([step.sketch for step in one.steps], one, [step.text for step in one.steps])
    assert report["legal"] == 1
    report = task.sketch_report([step.sketch for step in one.steps][::-1], one, [step.text for step in one.steps])
    assert report["legal"] < 1 and report["gold"] == 0


@pytest.mark.parametrize(
    "said, ok",
    [
        ("K", True),
        (" k. ", True),
        ("J", False),
        ("red", False),
        ("", False),
        ("KL", False),
        ("letter K", False),
        ("ABC", False),
    ],
)
def test_a_letter_is_read_in_one_way(said, ok):
    meta = {
        "things": [[3, 3, "red square K"], [3, 4, "red circle J"]],
        "query": {"kind": "letter", "what": "red square"},
    }
    assert tasks.make("search_zoom").check(f"\\boxed{{{said}}}", meta).ok == ok


def test_impossible_options_are_refused():
    for options in ({"level": 0}, {"level": 6}, {"side": 18}, {"side": 4}, {"pairs": "all"}):
        with pytest.raises(ValueError):
            tasks.make("search_zoom", **options)
