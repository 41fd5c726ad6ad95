"""The rules of the sliding puzzle, its distances and its checker."""

import numpy as np
import pytest

from latent_reason import tasks
from latent_reason.tasks import slide
from latent_reason.tasks.stream import Stream


def brute(start, goal, longest=9):
    """The length of a shortest plan by search over strings from both ends; None beyond ``longest``."""

    def after(text):
        gap = text.index("0")
        for spot in range(9):
            if abs(spot // 3 - gap // 3) + abs(spot % 3 - gap % 3) == 1:
                cells = list(text)
                cells[gap], cells[spot] = cells[spot], "0"
                yield "".join(cells)

    ends = [{"".join(map(str, start))}, {"".join(map(str, goal))}]
    for length in range(longest + 1):
        if ends[0] & ends[1]:
            return length
        ends[length % 2] = {there for here in ends[length % 2] for there in (here, *after(here))}
    return None


def test_distances_agree_with_a_search():
    stream = Stream.of("solve")
    for _ in range(300):
        start = goal = stream.shuffle(range(9))
        for _ in range(stream.between(0, 9)):
            goal = slide.slide_tile(goal, goal[stream.choice(slide.BESIDE[goal.index(0)])])
        length, plan = slide.distance(start, goal), slide.solve(start, goal)
        assert length == brute(start, goal) == len(plan) and slide.walk(start, plan) == goal


def test_known_facts_of_the_puzzle():
    """181,440 boards are reachable, the farthest (two of them) in 31 moves."""
    counts = np.bincount(slide.table(8)[slide.table(8) >= 0])
    assert counts.sum() == 181_440 and len(counts) == 32 and counts[31] == 2
    assert list(counts[:6]) == [1, 2, 4, 8, 16, 20]
    assert slide.distance([1, 2, 3, 4, 5, 6, 8, 7, 0], [1, 2, 3, 4, 5, 6, 7, 8, 0]) == -1


@pytest.mark.parametrize("level", slide.BANDS)
def test_a_level_is_a_band_of_lengths(level):
    task = tasks.make("slide", level=level)
    lengths = {task[i].meta["optimum"] for i in range(40)}
    low, high = slide.BANDS[level]
    assert lengths == set(range(low, high + 1))


META = {
    "start": [1, 2, 3, 4, 0, 5, 7, 8, 6],
    "goal": [1, 2, 3, 4, 5, 6, 7, 8, 0],
    "optimum": 2,
    "skin": "plain",
    "checker": "slide",
}


@pytest.mark.parametrize(
    "text, success, exact, progress",
    [
        ("\\boxed{5,6}", 1, 1, 1),
        ("\\boxed{ 5 6 }", 1, 1, 1),
        ("\\boxed{4,4,5,6}", 1, 0, 1),
        ("\\boxed{5}", 0, 0, 0.5),
        ("\\boxed{5,6,6}", 0, 0, 0.5),
        ("\\boxed{5,6,1}", 0, 0, 0),
        ("\\boxed{2,2}", 0, 0, 0),
        ("\\boxed{56}", 0, 0, 0),
        ("5,6", 0, 0, 0),
        ("\\boxed{5,6,9}", 0, 0, 0),
        ("\\boxed{٥,٦}", 0, 0, 0),
    ],
)
def test_measures(text, success, exact, progress):
    assert list(tasks.make("slide").score(text, META).values()) == [success, exact, progress]


def test_a_turned_or_mirrored_puzzle_is_the_same():
    task, puzzle = tasks.make("slide"), tasks.make("slide")[5].state
    assert len(set(map(tuple, slide.TURNS))) == 8
    for turn in slide.TURNS:
        turned = {key: [board[i] for i in turn] for key, board in puzzle.items()}
        assert task.canon(turned) == task.canon(puzzle)
        assert slide.distance(turned["start"], turned["goal"]) == slide.distance(puzzle["start"], puzzle["goal"])


@pytest.mark.parametrize("options", [{"level": 7}, {"level": 0}, {"chunk": (0, 2)}])
def test_what_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match=r"moves|chunk"):
        tasks.make("slide", **options)
