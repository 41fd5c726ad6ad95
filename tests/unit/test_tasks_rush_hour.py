"""The rules of Rush Hour, its shortest plans and its checker."""

import pytest

from latent_reason import tasks
from latent_reason.tasks import rush_hour as rush
from latent_reason.tasks.stream import Stream


def brute(cars, longest):
    """The length of a shortest plan by search on grids of letters; None beyond ``longest``."""
    grid = [["."] * 6 for _ in range(6)]
    for number, (row, column, length, way) in enumerate(cars):
        for i in range(length):
            grid[row + i * (way == "V")][column + i * (way == "H")] = rush.LETTERS[number]

    def after(text):
        for letter in set(text) - {"."}:
            cells = [i for i, c in enumerate(text) if c == letter]
            step = cells[1] - cells[0]
            for sign, front in ((1, cells[-1]), (-1, cells[0])):
                for far in range(1, 6):
                    to = front + sign * far * step
                    if not 0 <= to < 36 or (step == 1 and to // 6 != front // 6) or text[to] != ".":
                        break
                    moved = ["." if c == letter else c for c in text]
                    for i in cells:
                        moved[i + sign * far * step] = letter
                    yield "".join(moved)

    edge = seen = {"".join(map("".join, grid))}
    for length in range(longest + 1):
        if any(text[17] == "A" for text in edge):
            return length
        edge = {there for here in edge for there in after(here)} - seen
        seen = seen | edge
    return None


def test_plans_are_shortest():
    stream, found = Stream.of("solve"), 0
    for _ in range(60):
        cars = rush.fill_yard([[2, 0, 2, "H"]], stream)
        plan = rush.solve(cars)
        assert (plan and len(plan)) == brute(cars, 60)
        if plan:
            found += 1
            assert rush.is_solved(rush.walk(cars, plan))
    assert found > 5


@pytest.mark.parametrize("level", [1, 2])
def test_a_level_is_a_band_of_lengths(level):
    task = tasks.make("rush_hour", level=level)
    items = [task[i] for i in range(25)]
    low, high = rush.BANDS[level]
    assert all(low <= i.meta["optimum"] <= high for i in items) and len({i.meta["optimum"] for i in items}) == 5
    assert all(brute(i.meta["cars"], high) == i.meta["optimum"] for i in items[:6])
    assert all(rush.occupied(i.meta["cars"]).bit_count() == sum(c[2] for c in i.meta["cars"]) for i in items)


CARS = [[2, 1, 2, "H"], [1, 3, 3, "V"], [5, 0, 2, "H"]]
META = {"cars": CARS, "optimum": 2, "skin": "plain", "checker": "rush_hour"}


@pytest.mark.parametrize(
    "text, success, exact, progress",
    [
        ("\\boxed{B+2,A+3}", 1, 1, 1),
        ("\\boxed{ b+2 a+3 }", 1, 1, 1),
        ("\\boxed{B+1,B+1,A+3}", 1, 0, 1),
        ("\\boxed{B+2,A+1}", 0, 0, 1 / 3),
        ("\\boxed{A+3}", 0, 0, 0),
        ("\\boxed{B+2,A+4}", 0, 0, 0),
        ("\\boxed{B+2,A+3,C-1}", 0, 0, 0),
        ("\\boxed{B+2,A+3,A-1}", 0, 0, 2 / 3),
        ("\\boxed{D+1}", 0, 0, 0),
        ("\\boxed{B+0,B+2,A+3}", 0, 0, 0),
        ("\\boxed{B2,A3}", 0, 0, 0),
        ("B+2,A+3", 0, 0, 0),
        ("\\boxed{B+٢}", 0, 0, 0),
    ],
)
def test_measures(text, success, exact, progress):
    found = tasks.make("rush_hour").score(text, META)
    assert list(found.values()) == pytest.approx([success, exact, progress])


def test_the_states_of_a_yard_are_one_puzzle():
    task = tasks.make("rush_hour")
    assert task.canon({"cars": rush.walk(CARS, [(1, 2), (0, 2)])}) == task.canon({"cars": CARS})
    assert task.canon({"cars": CARS[:2]}) != task.canon({"cars": CARS})


def test_sketches_that_show_something_else_have_faults():
    task = tasks.make("rush_hour")
    read = lambda cars: task.parse_sketch(rush.draw(cars, "plain"), META)
    assert read(CARS).valid and read(rush.walk(CARS, [(1, 2)])).valid
    assert not read(CARS[:2]).valid
    assert read([*CARS, [0, 0, 2, "H"]]).faults == ("cell that shows something else",)


@pytest.mark.parametrize("options", [{"level": 5}, {"level": 0}, {"chunk": (2, 1)}])
def test_what_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match=r"moves|chunk"):
        tasks.make("rush_hour", **options)
