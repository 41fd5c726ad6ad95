"""Rush Hour: find the moves after which the red car can leave a 6 x 6 yard on the right. A sketch shows the yard after
every one to three moves, except after the last move.

A car is ``[row, column, length, way]``: its first cell, its length and its orientation H (moves left and right) or V
(up and down). A state is a list of cars. The first car is the red one, called A; the others are B, C, ... in the
reading order of the start. A move such as ``B-2`` slides one car by a number of free cells, + to the right or down.
"""

from __future__ import annotations

import re
from typing import ClassVar

import numpy as np
from PIL import Image as PILImage

from . import canvas
from .canvas import LOOKS
from .checkers import Check, boxed
from .drawn import PlannedTask
from .item import Item, Parsed, Rejected, Step
from .rush_hour_rules import (
    LETTERS,
    MOST_STATES,
    RED_ROW,
    Car,
    Move,
    N,
    Space,
    fill_yard,
    is_solved,
    lane_of,
    occupied,
    slide_car,
    solve,
    walk,
)
from .rush_hour_view import FAR, draw, drawn_car, patch
from .stream import Stream, canon, split_of

BANDS = {1: (1, 5), 2: (6, 10), 3: (11, 15), 4: (16, 20)}  # moves of a shortest plan

QUESTIONS = (
    "Slide the cars so that the red car can leave on the right. Which moves, in order?",
    "Free the red car: which cars slide, and how far?",
    "The red car wants out of the yard. Plan the moves, as few as you can.",
    "Which moves bring the red car to the exit?",
    "Solve the traffic jam: the red car must reach the gap in the wall.",
)
MOVES = ("Slide {moves}.", "Move {moves}.", "Push {moves}.", "Shift {moves}.", "Then {moves}.", "Next {moves}.")
CLAUSES = (
    "Car {car} is now at {cell}.",
    "Now car {car} begins at {cell}.",
    "That puts car {car} at {cell}.",
    "Car {car} stands at {cell}.",
    "So {car} is at {cell}.",
)
STATES = (
    "Cars: {cars}.",
    "The cars: {cars}.",
    "Yard: {cars}.",
    "Now the cars stand so: {cars}.",
    "The yard holds {cars}.",
)
_SAID = re.compile(r"\b([A-O])([+-][1-4])\b", re.ASCII)


class RushHour(PlannedTask):
    """Free the red car. Level 1 takes 1 to 5 moves; each further level up to 4 takes 5 more.

    The canonical string of a puzzle contains only which cars share which row or column, so two states of one yard are
    never in different splits. Hard yards are rare: generating an item takes about a second for level 3 and several
    seconds for level 4. ``chunk``: minimum and maximum number of moves between two sketches.
    """

    name = "rush_hour"
    redraws = True
    trained = (1, 2)
    ood: ClassVar = {"size": {"level": 3}, "skin": {"skin": "other"}, "composition": {"level": 2, "chunk": (4, 4)}}
    swaps = (tuple(LETTERS[:12]), tuple("1234"))
    bands = BANDS
    solve = staticmethod(solve)

    # -- items ---------------------------------------------------------------------------------------------------------
    def draw(self, level: int, targets: int, stream: Stream) -> dict:
        """Sample a solved yard, then one of its states at a distance of ``targets`` moves from a solved state."""
        cars = fill_yard([[RED_ROW, N - 2, 2, "H"]], stream)
        while (
            split_of(self.canon({"cars": cars})) != self.split
        ):  # replacing one car is faster than sampling a new yard
            out = stream.between(1, len(cars) - 1)
            cars = fill_yard(cars[:out] + cars[out + 1 :], stream)
        space = Space(cars, MOST_STATES)
        layers = space.layers() if space.whole else []
        if len(layers) <= targets:
            raise Rejected("no state so far from solved")
        red, *others = space.state(stream.choice(layers[targets]))
        return {"cars": [red, *sorted(others)]}

    def canon(self, puzzle: dict) -> str:
        lanes: dict[str, list[int]] = {}
        for lane, length, way, _ in sorted(map(lane_of, puzzle["cars"]), key=lambda car: (car[2], car[0], car[3])):
            lanes.setdefault(f"{way}{lane}", []).append(length)
        return canon("rush_hour/1", lanes)

    def verify(self, puzzle: dict, targets: int) -> None:
        """Nothing to test: ``draw`` samples at the target distance."""

    def build(self, puzzle: dict, level: int, index: int) -> Item:
        start, stream = puzzle["cars"], self.stream(level, index, "text")
        question = stream.choice(QUESTIONS)
        plan = solve(start)
        assert plan is not None  # yards are drawn at a distance from a solved state
        steps, cars, done = [], start, 0
        while done < len(plan):
            moves = plan[done : done + stream.between(*self.chunk)]
            done += len(moves)
            cars, last = walk(cars, moves), done == len(plan)
            assert cars is not None  # moves of a plan are legal
            text = stream.choice(MOVES).format(moves=format_plan(moves, " "))
            if stream.unit() >= self.omit_state_p and not last:
                car = moves[-1][0]
                text = f"{text} {stream.choice(CLAUSES).format(car=LETTERS[car], cell=cell_of(cars[car]))}"
            steps.append(Step(text, None if last else draw(cars, self.skin), {"cars": cars}))
        meta = {"cars": start, "optimum": len(plan), "skin": self.skin, "checker": self.name}
        return self.make_item(level, index, puzzle, [draw(start, self.skin)], question, steps, format_plan(plan), meta)

    # -- answers -------------------------------------------------------------------------------------------------------
    def check(self, text: str, meta: dict) -> Check:
        """Correct if every move is legal and the red car ends at the exit. Otherwise ``partial`` is the fraction of its
        distance that the red car covered."""
        content = boxed(text)
        found = [
            re.fullmatch(r"([A-O])([+-][1-4])", piece, re.ASCII)
            for piece in re.split(r"[,;\s]+", (content or "").strip().upper())
        ]
        if None in found:
            return Check(False, 0.0, "no_plan")
        moves = [(LETTERS.index(match[1]), int(match[2])) for match in found]
        end = walk(meta["cars"], moves)
        if end is None:
            return Check(False, 0.0, "a move that is not legal", moves)
        begun, now = meta["cars"][0][1], end[0][1]
        if is_solved(end):
            return Check(True, 1.0, "out", moves)
        return Check(False, max(0.0, (now - begun) / (N - 2 - begun)), "the red car is not at the exit", moves)

    def score(self, text: str, meta: dict) -> dict[str, float]:
        """``exact``: solved with a shortest plan."""
        result = self.check(text, meta)
        exact = result.ok and len(result.parsed) == meta["optimum"]
        return {"success": float(result.ok), "exact": float(exact), "progress": result.partial}

    def wrong(self, item: Item) -> list[str]:
        plan = item.answer.split(",")
        tries = [plan[:-1], plan[1:], [*plan, "A+1"], [*plan, "A-1"], [*plan, "Z+1"], ["A+4", *plan], [*plan, "A"]]
        tries += [[*plan[:i], move.translate(str.maketrans("+-", "-+")), *plan[i + 1 :]] for i, move in enumerate(plan)]
        return [a for a in map(",".join, tries) if not self.check(f"\\boxed{{{a}}}", item.meta).ok]

    # -- words ---------------------------------------------------------------------------------------------------------
    def state_sentence(self, state: dict, stream: Stream) -> str:
        return stream.choice(STATES).format(cars=format_cars(state["cars"]))

    def in_words(self, item: Item) -> str:
        """All cars with first cell, length and orientation, and the exit."""
        return (
            f"A yard of {N} by {N} cells. Red car and others: {format_cars(item.meta['cars'])}. Exit: right of row 3."
        )

    def shown(self, item: Item) -> dict:
        return {"cars": item.meta["cars"]}

    def state_said(self, item: Item, said: list[str]) -> dict:
        cars = item.meta["cars"]
        for move in moves_in(" ".join(said)):
            cars = slide_car(cars, *move) or cars
        return {"cars": cars}

    def legal(self, item: Item, before: dict | None, said: str, after: dict) -> bool:
        moves = moves_in(said)
        return before is not None and bool(moves) and walk(before["cars"], moves) == after["cars"]

    def follows(self, donor: Item, before: str, after: list[str]) -> float:
        """1 if the moves written before and after the donor's sketch free the donor's car."""
        plan = moves_in(before) + moves_in(" ".join(after))
        return self.score(f"\\boxed{{{format_plan(plan)}}}", donor.meta)["success"]

    # -- pictures ------------------------------------------------------------------------------------------------------
    def render_state(self, item: Item, state: dict) -> PILImage.Image:
        return draw(state["cars"], item.meta["skin"])

    def parse_sketch(self, image: PILImage.Image, meta: dict) -> Parsed:
        """Locate each car of the problem in its row or column, then compare all other cells with their rendering.
        Faults: missing cars, and cells that show something else."""
        skin, cars, faults, worst = meta["skin"], [], set(), 0.0
        side = LOOKS[skin].cell
        size = (N + 1) * side
        seen = canvas.pixels(image, size, size).astype(np.int16)
        for number, (row, column, length, way) in enumerate(meta["cars"]):
            sprite = drawn_car(number, length, way, skin).astype(np.int16)
            places = [[row, p, length, way] if way == "H" else [p, column, length, way] for p in range(N - length + 1)]
            off = [np.abs(patch(seen, car, side) - sprite).mean() for car in places]
            cars.append(places[int(np.argmin(off))])
            worst = max(worst, min(off))
        if worst > FAR:
            return Parsed(None, 0.0, ("car that is not there",))
        if occupied(cars).bit_count() != sum(car[2] for car in cars):
            faults.add("cars on top of each other")
        wanted = np.asarray(draw(cars, skin)).astype(np.int16)
        cells = np.abs(seen - wanted)[side // 2 : -(side // 2), side // 2 : -(side // 2)]
        if cells.reshape(N, side, N, side, 3).mean((1, 3, 4)).max() > FAR:
            faults.add("cell that shows something else")
        return Parsed({"cars": cars}, float(1 - worst / FAR), tuple(sorted(faults)))


# -- text and images ---------------------------------------------------------------------------------------------------
def format_plan(moves: list[Move], between: str = ",") -> str:
    return between.join(f"{LETTERS[car]}{cells:+d}" for car, cells in moves)


def moves_in(text: str) -> list[Move]:
    """The moves that a text states before its final answer."""
    return [(LETTERS.index(car), int(cells)) for car, cells in _SAID.findall(text.split("\\boxed")[0])]


def cell_of(car: Car) -> str:
    return f"row {car[0] + 1} column {car[1] + 1}"


def format_cars(cars: list[Car]) -> str:
    """The cars in text. ``A 3 1 across 2`` is a horizontal car of length 2 whose first cell is row 3, column 1."""
    return ", ".join(
        f"{LETTERS[i]} {row + 1} {column + 1} {'across' if way == 'H' else 'down'} {length}"
        for i, (row, column, length, way) in enumerate(cars)
    )
