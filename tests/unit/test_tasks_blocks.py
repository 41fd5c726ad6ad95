"""The rules of blocks, its shortest plans and its checker."""

import pytest

from latent_reason import tasks
from latent_reason.tasks import blocks
from latent_reason.tasks.stream import Stream


def brute(begin, end):
    """The length of a shortest plan by breadth-first search over all arrangements, written with what stands on what."""

    def after(state):
        clear = set(state) - set(state.values())
        for block in clear:
            for under in (*clear - {block}, "table"):
                if under != state[block]:
                    yield {**state, block: under}

    goal, seen, edge, length = blocks.below(end), {tuple(sorted(blocks.below(begin).items()))}, [blocks.below(begin)], 0
    while goal not in edge:
        found = {tuple(sorted(there.items())) for here in edge for there in after(here)} - seen
        seen |= found
        edge, length = [dict(state) for state in found], length + 1
    return length


@pytest.mark.parametrize("count", [3, 4, 5])
def test_plans_are_shortest(count):
    stream, names = Stream.of("solve", count), list(blocks.NAMES[:count])
    for _ in range({3: 100, 4: 150, 5: 60}[count]):
        begin, end = (blocks.arrangement(stream.shuffle(names), stream) for _ in range(2))
        plan, slots = blocks.solve(begin, end), begin
        for move in plan:
            slots = blocks.apply_move(slots, *move)
        assert blocks.stacks_of(slots) == blocks.stacks_of(end) and len(plan) == brute(begin, end)


def test_a_knot_needs_a_block_on_the_table():
    begin, end = [["red", "blue"], ["green", "yellow"], [], []], [["green", "blue"], ["red", "yellow"], [], []]
    assert len(blocks.solve(begin, end)) == 3  # each top wants what the other covers
    assert blocks.apply_move(begin, "red", "table") is None and blocks.apply_move(begin, "blue", "green") is None
    assert blocks.apply_move(begin, "blue", "blue") is None
    assert blocks.apply_move(begin, "blue", "table") == [["red"], ["green", "yellow"], ["blue"], []]
    assert blocks.apply_move([["red"], [], []], "red", "table") is None


META = {
    "begin": [["red", "blue"], ["green"], []],
    "end": [["green", "red"], ["blue"], []],
    "optimum": 2,
    "skin": "plain",
    "checker": "blocks",
}


@pytest.mark.parametrize(
    "text, success, strict, exact",
    [
        ("\\boxed{move(blue,table);move(red,green)}", 1, 1, 1),
        ("\\boxed{ Move( b , table )\nmove(r, g). }", 1, 1, 1),
        ("\\boxed{move(red,green);move(blue,table);move(red,green)}", 1, 0, 0),  # the first is not legal yet: skipped
        ("\\boxed{move(blue,green);move(blue,table);move(red,green)}", 1, 1, 0),
        ("\\boxed{go(red);move(blue,table);move(pink,table);move(red,green)}", 1, 0, 0),
        ("\\boxed{move(blue,table);move(red,green);move(red,table)}", 0, 0, 0),
        ("First.\n<Output>\n1. move(blue,table)\n2. move(red,green)\n", 1, 1, 1),
        ("move(blue,table);move(red,green)", 0, 0, 0),
    ],
)
def test_measures(text, success, strict, exact):
    found = tasks.make("blocks").score(text, META)
    assert [found[k] for k in ("success", "strict", "exact")] == [success, strict, exact]


def test_partial_counts_blocks_that_stand_right():
    assert tasks.make("blocks").check("\\boxed{move(blue,table)}", META).partial == 2 / 3


def test_the_order_of_stacks_does_not_count():
    task, puzzle = tasks.make("blocks"), {"begin": META["begin"], "end": META["end"]}
    assert task.canon({"begin": puzzle["begin"][::-1], "end": puzzle["end"]}) == task.canon(puzzle)
    assert task.canon({"begin": puzzle["end"], "end": puzzle["begin"]}) != task.canon(puzzle)


def test_sketches_with_broken_stacks_have_faults():
    task = tasks.make("blocks")
    read = lambda slots: task.parse_sketch(blocks.draw(slots, task.look), META)
    assert read([["red"], ["green", "blue"], []]).valid
    assert read([["red"], ["green"], []]).faults == ("other blocks than in the problem",)
    assert "block twice" in read([["red", "green"], ["green", "blue"], []]).faults


@pytest.mark.parametrize("options", [{"level": 8}, {"level": 0}, {"blocks": (2, 4)}, {"blocks": (6, 9)}])
def test_what_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match=r"blocks"):
        tasks.make("blocks", **options)


def test_a_flipped_picture_has_the_same_plans():
    task = tasks.make("blocks")
    for i in range(6):
        item = task[i]
        other = task.turned(item, "flipped")
        flipped = {**item.meta, "begin": item.meta["begin"][::-1], "end": item.meta["end"][::-1]}
        for picture, key in zip(other.images, ("begin", "end"), strict=True):
            shown = task.parse_sketch(picture, flipped).state["slots"]
            assert blocks.stacks_of(shown) == blocks.stacks_of(flipped[key]) and shown != item.meta[key]
        assert other.answer == item.answer and task.check(f"\\boxed{{{other.answer}}}", flipped).ok
    assert task.turned(item, "turned_90") is None, "what is up would no longer be"
