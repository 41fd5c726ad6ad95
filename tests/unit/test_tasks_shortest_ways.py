"""Boards with several shortest ways: every one is right, the item's is any of them, and a mean of them is no sketch."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from PIL import Image

from latent_reason import tasks
from latent_reason.tasks import frozenlake_board as board
from latent_reason.tasks import frozenlake_view, frozenlake_words
from latent_reason.tasks import shortest_ways_view as view
from latent_reason.tasks.frozenlake_words import moves_in
from latent_reason.tasks.stream import Stream

SKINS = [
    pytest.param(
        "sprites",
        marks=pytest.mark.skipif(frozenlake_view.skin_of("auto") != "sprites", reason="gymnasium 0.29.1 is missing"),
    ),
    "drawn",
]
ROWS = ["SFF", "FHF", "FFG"]  # two ways
LONGER = "RRDLLDRR"


def made(count, **options):
    task = tasks.make("shortest_ways", **options)
    return task, [task[i] for i in range(count)]


def all_ways(rows):
    return [board.nth_shortest(rows, k) for k in range(board.solve(rows)[1])]


def brute(rows, length):
    """All plans of this length to the goal that meet neither a hole nor the edge of the board."""
    for moves in product("UDLR", repeat=length):
        cells = board.walk(rows, moves)
        if len(set(cells)) == length + 1 and rows[cells[-1][0]][cells[-1][1]] == "G":
            yield "".join(moves)


def mean_of(pictures):
    return Image.fromarray(np.mean([np.asarray(p, float) for p in pictures], 0).round().astype(np.uint8))


def told(item, way):
    """The texts around a sketch of an answer that says this way."""
    return [item.steps[0].text, frozenlake_words.chunk(way, Stream("told"))]


# -- ways ----------------------------------------------------------------------------------------------------------------
def test_the_numbered_ways_are_all_shortest_ways():
    _, items = made(12, level=(3, 4), length=(2, 4))
    for item in items:
        rows, length = item.meta["map"], item.meta["optimum"]
        ways = all_ways(rows)
        assert sorted(ways) == sorted(brute(rows, length)) and not any(brute(rows, length - 1))
        assert len(ways) == item.meta["solutions"] >= 2 and item.meta["way"] in ways


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_board_has_as_many_ways_as_asked_for(split):
    for ways in (2, 3):
        _, items = made(8, ways=ways, split=split)
        assert all(item.meta["solutions"] >= ways for item in items)
    _, items = made(4, ways=8, level=5)
    assert all(item.meta["solutions"] >= 8 for item in items)


def test_the_way_of_an_item_is_drawn_evenly_from_all_ways():
    """Not move by move: of the five ways of this board three begin to the right."""
    rows, task = ["SFF", "FFF", "HFG"], tasks.make("shortest_ways", level=3)
    counts = Counter(task.build({"map": rows}, 3, index).meta["way"] for index in range(600))
    assert set(counts) == set(all_ways(rows)) and len(counts) == 5
    error = sum((count - 120) ** 2 / 120 for count in counts.values())
    assert error < 18.5, counts  # chi squared with 4 degrees of freedom is larger once in a thousand times


def test_nothing_before_the_sketch_tells_which_way():
    _, items = made(40, level=(4, 5), omit_state_p=0.0, skin="drawn")
    for item in items:
        first, last = item.steps
        assert item.images[0].tobytes() == frozenlake_view.render(board.state_of(item.meta["map"]), "drawn").tobytes()
        assert not moves_in(first.text) and not moves_in(item.question)
        assert "".join(moves_in(last.text)) == item.meta["way"] == item.answer.replace(",", "")
        assert first.sketch is not None and last.sketch is None and f"{item.meta['optimum']} moves" in first.text


# -- scores --------------------------------------------------------------------------------------------------------------
def test_every_shortest_way_is_right_and_no_other_plan_is_shortest():
    task, items = made(16)
    for item in items:
        ways = all_ways(item.meta["map"])
        for way in ways:
            scores = task.score(f"\\boxed{{{','.join(way)}}}", item.meta)
            assert set(scores.values()) == {1.0}
        detour = [ways[0][0], view.OPPOSITE[ways[0][0]], *ways[0]]
        scores = task.score(f"\\boxed{{{','.join(detour)}}}", item.meta)
        assert scores["success"] == 1 and scores["exact"] == scores["exact_strict"] == 0
        for wrong in (ways[0][:-1], "X", ""):
            scores = task.score(f"\\boxed{{{','.join(wrong)}}}", item.meta)
            assert scores["success"] == scores["exact"] == scores["exact_strict"] == 0


@pytest.mark.parametrize("skin", SKINS)
def test_a_sketch_of_any_shortest_way_is_right(skin):
    task, items = made(8, level=(3, 4, 5), skin=skin)
    for item in items:
        for way in all_ways(item.meta["map"])[:6]:
            picture = task.render_state(item, {"map": item.meta["map"], "way": way})
            (found,) = task.sketch_report([picture], item, told(item, way))["sketches"]
            assert (
                found["valid"] and found["gold"] and found["equal"] and found["legal"] and found["state"]["way"] == way
            )
            other = next(w for w in all_ways(item.meta["map"]) if w != way)
            (found,) = task.sketch_report([picture], item, told(item, other))["sketches"]
            assert found["gold"] and not found["equal"], "the text reads another way off the sketch"
            (found,) = task.sketch_report([picture], item, [item.steps[0].text])["sketches"]
            assert found["gold"] and not found["equal"], "the text reads nothing off the sketch"


def test_a_longer_way_is_a_way_but_no_right_one_and_another_board_is_neither():
    task, rows = tasks.make("shortest_ways", level=3), ["SFF", "FFF", "FFG"]
    item = task.build({"map": rows}, 3, 0)
    longer = view.render({"map": rows, "way": LONGER}, item.meta["skin"])
    (found,) = task.sketch_report([longer], item, told(item, LONGER))["sketches"]
    assert found["valid"] and found["equal"] and not found["gold"] and not found["legal"]
    other = view.render({"map": ROWS, "way": "RRDD"}, item.meta["skin"])
    (found,) = task.sketch_report([other], item, told(item, "RRDD"))["sketches"]
    assert not found["valid"] and not found["gold"] and found["faults"] == ["cell 2 2 is H, not F"]


# -- pictures ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("skin", SKINS)
@pytest.mark.parametrize("level", [3, 4, 6])
def test_a_mean_of_ways_is_no_sketch(skin, level):
    """What a head draws that predicts the mean: of two ways, of all ways, or mostly of one."""
    task, items = made(12, level=level, skin=skin)
    for item in items:
        ways = all_ways(item.meta["map"])
        pictures = [task.render_state(item, {"map": item.meta["map"], "way": way}) for way in ways]
        assert all(task.parse_sketch(p, item.meta).state["way"] == way for p, way in zip(pictures, ways, strict=True))
        for mean in (mean_of(pictures[:2]), mean_of(pictures), mean_of([pictures[0], *pictures[:2]])):
            for size in (mean.size, (32 * level, 32 * level)):
                parsed = task.parse_sketch(mean.resize(size, Image.Resampling.BICUBIC), item.meta)
                assert not parsed.valid and parsed.state is None
                assert any("between two readings" in fault for fault in parsed.faults)
            (found,) = task.sketch_report([mean], item, told(item, ways[0]))["sketches"]
            assert not any(found[key] for key in ("valid", "gold", "equal", "legal"))


@pytest.mark.parametrize("skin", SKINS)
def test_what_is_no_way_is_told(skin):
    def faults(picture, rows=ROWS):
        parsed = view.parse(picture, rows, skin)
        assert parsed.state is None and not parsed.valid
        return parsed.faults

    whole = np.asarray(view.render({"map": ROWS, "way": "RRDD"}, skin))
    none = np.asarray(frozenlake_view.render(board.state_of(ROWS), skin))
    assert faults(Image.fromarray(none)) == ("no way is drawn",)
    broken = whole.copy()
    broken[:64, 64:128] = none[:64, 64:128]
    line = "the line is no way from the elf to the goal"
    assert faults(Image.fromarray(broken)) == (line,)
    both = np.asarray(view.render({"map": ROWS, "way": "DDRR"}, skin))
    forked = np.where((whole != none).any(-1, keepdims=True), whole, both)  # both ways at full strength
    assert faults(Image.fromarray(forked)) == (line,)
    assert faults(view.render({"map": ["SFF", "FFF", "FHG"], "way": "DDRR"}, skin)) == (line,)  # through a hole
    assert faults(view.render({"map": ROWS, "way": "RR"}, skin)) == (line,)  # too short
    two = whole.copy()
    two[128:, :64] = whole[:64, :64]
    assert "2 cells show the elf" in faults(Image.fromarray(two))


def test_any_text_can_be_drawn():
    task, (item,) = made(1)
    for text in ("Go U U U U L L.", "Go D U D U D D R R R R R R.", ""):
        assert task.render_state(item, task.state_said(item, [text])).size == item.images[0].size


def test_reading_traces_tell_the_truth():
    task, kinds = tasks.make("shortest_ways", level=(3, 4)), Counter()
    for i in range(60):
        trace = task.reading_trace(i)
        (state, *_), texts = trace.meta["states"], [m.content[0].text for m in trace.messages[1::2]]
        kinds["way" in state] += 1
        if "way" in state:
            assert task.parse_sketch(trace.images()[0], trace.meta).state == state
            assert set(texts) == {" ".join(state["way"]), board.map_line(board.state_of(state["map"]))}
    assert kinds[True] > kinds[False] > 8


def test_another_length_replaces_the_length():
    task, items = made(10)
    for item in items:
        said = task.corrupt(item.steps[0].text, Stream(item.id))
        assert said != item.steps[0].text and task.corrupt("Go D R.", Stream("x")) != "Go D R."


def test_what_cannot_be_is_refused():
    for options in ({"ways": 1}, {"ways": 7, "level": 3}, {"ways": 4, "level": 3, "split": "val"}):
        with pytest.raises(ValueError, match="ways"):
            tasks.make("shortest_ways", **options)
    with pytest.raises(ValueError, match=r"ways=3 needs at least 3 moves, .* length 2 at level 4"):
        tasks.make("shortest_ways", ways=3, level=4, length=(2, 3))
    with pytest.raises(ValueError, match="no option 'chunk'"):
        tasks.make("shortest_ways", chunk=(1, 2))
