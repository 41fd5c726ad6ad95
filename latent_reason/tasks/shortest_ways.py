"""FrozenLake boards with several shortest ways (``shortest_ways``): draw one of them, then read the moves off the drawing.

Several next sketches are right, and nothing before the sketch tells which one the item holds. So the mean of its sketches
is no right sketch, and a head has to choose. A state is ``{"map": rows, "way": moves}``: the board with a line from the
elf along the way.
"""

from __future__ import annotations

import re
from math import comb
from typing import Annotated, ClassVar

from PIL import Image as PILImage

from ..trace import Trace
from ..values import Bounds
from . import frozenlake_board as board
from . import frozenlake_reading as reading
from . import frozenlake_view, frozenlake_words
from . import shortest_ways_view as view
from .frozenlake import PlanTask
from .item import Item, Parsed, Rejected, Step
from .stream import Stream

SKETCHES = (
    "Draw a way of {n} moves.",
    "Here is a way of {n} moves.",
    "One way has {n} moves.",
    "Mark a path of {n} moves.",
    "A path of {n} moves.",
    "Take one path of {n} moves.",
)
ENDS = (
    "It goes from {start} to {goal}.",
    "From {start} to {goal}.",
    "It starts at {start} and ends at {goal}.",
    "The line is from {start} to {goal}.",
    "Start {start}, goal {goal}.",
)
LINES = ("Line: {way}.", "The line: {way}.", "Way: {way}.", "The line goes {way}.", "The way is {way}.")
ASKED = (
    "Read the line.",
    "Which moves does the line show?",
    "Where does the line go?",
    "Spell the way.",
    "Follow the line from the elf.",
)
LENGTH = re.compile(r"\d+(?= moves)")


class ShortestWays(PlanTask):
    """Draw one shortest way from the elf to the gift, then give its moves.

    The way of an item is sampled uniformly from all its shortest ways. ``ways``: the least number of shortest ways of a
    board; ``meta["solutions"]`` is its number. Other options: see :class:`.frozenlake.PlanTask`.
    """

    name = "shortest_ways"
    ood: ClassVar = PlanTask.ood | {"ways": {"level": (5, 6), "ways": 8}}

    def __init__(self, *, ways: Annotated[int, Bounds(2, 50)] = 2, **options):
        super().__init__(**options)
        self.ways = ways
        self.least = next(n for n in range(2, 12) if comb(n, n // 2) >= ways)  # n moves have no more orders
        longest = min(map(self.longest, self.levels))
        shortest, longest = self.length or (min(self.least, longest), longest)
        if shortest < self.least:
            raise ValueError(
                f"ways={ways} needs at least {self.least} moves, more than the paths of length {shortest} at level "
                f"{min(self.levels)} have. Use larger boards, longer paths or a smaller number."
            )

    def verify(self, puzzle: dict, targets: int | None) -> None:
        super().verify(puzzle, targets)
        if (board.solve(puzzle["map"]) or (0, 0))[1] < self.ways:
            raise Rejected("too few ways")

    def build(self, puzzle: dict, level: int, index: int) -> Item:
        rows, stream = list(puzzle["map"]), self.stream(level, index, "text")
        solution = board.solve(rows)
        assert solution is not None  # boards without a plan are rejected
        length, ways = solution
        way = board.nth_shortest(rows, self.stream(level, index, "way").below(ways))
        question = frozenlake_words.question(frozenlake_words.PLAN_QUESTIONS, "", stream)
        text = stream.choice(SKETCHES).format(n=length)
        if stream.unit() >= self.omit_state_p:
            ends = {key: frozenlake_words.cell_words(board.find(rows, key[0].upper())) for key in ("start", "goal")}
            text = f"{text} {stream.choice(ENDS).format(**ends)}"
        state = {"map": rows, "way": way}
        steps = [
            Step(text, view.render(state, self.skin), state),
            Step(frozenlake_words.chunk(way, stream), None, state),
        ]
        meta = {
            "map": rows,
            "n": level,
            "skin": self.skin,
            "checker": "vsp",
            "way": way,
            "optimum": length,
            "solutions": ways,
        }
        picture = frozenlake_view.render(board.state_of(rows), self.skin)
        return self.make_item(level, index, {"map": rows}, [picture], question, steps, ",".join(way), meta, "vsp")

    def state_sentence(self, state: dict, stream: Stream) -> str:
        shown = frozenlake_words.map_sentence(board.state_of(state["map"]), stream)
        return f"{shown} {stream.choice(LINES).format(way=' '.join(state['way']))}"

    def render_state(self, item: Item, state: dict) -> PILImage.Image:
        return view.render(state, item.meta["skin"])

    def parse_sketch(self, image: PILImage.Image, meta: dict) -> Parsed:
        return view.parse(image, meta["map"], meta["skin"])

    def corrupt(self, text: str, stream: Stream) -> str:
        """The text with another number of moves, or with one of its moves replaced."""
        if match := LENGTH.search(text):
            other = stream.choice([n for n in range(1, 2 * int(match[0]) + 2) if n != int(match[0])])
            return f"{text[: match.start()]}{other}{text[match.end() :]}"
        return super().corrupt(text, stream)

    # -- evaluation of a model's sketches ------------------------------------------------------------------------------
    def shown(self, item: Item) -> dict:
        return {"map": item.meta["map"], "way": ""}

    def state_said(self, item: Item, said: list[str]) -> dict:
        way = "".join(move for text in said for move in frozenlake_words.moves_in(text))
        return {"map": item.meta["map"], "way": way or item.meta["way"]}

    def state_told(self, item: Item, said: list[str], k: int) -> dict | None:
        """The way that the text after the sketch reads off it, up to the next sketch."""
        way = frozenlake_words.moves_in(said[k + 1]) if k + 1 < len(said) else []
        return {"map": item.meta["map"], "way": "".join(way)}

    def same(self, one: dict | None, other: dict | None) -> bool:
        return one is not None and one == other

    def as_good(self, state: dict | None, gold: dict) -> bool:
        """Whether the state is the gold board with any of its shortest ways."""
        return state is not None and state["map"] == gold["map"] and len(state["way"]) == len(gold["way"])

    def variables(self, state: dict) -> dict:
        """The moves of the way by their number. The board never changes."""
        return {f"move {k + 1}": move for k, move in enumerate(state["way"])}

    def legal(self, item: Item, before: dict | None, said: str, after: dict) -> bool:
        """Whether the way has as many moves as the text before it says."""
        match = LENGTH.search(said)
        return match is not None and match[0] == str(len(after["way"]))

    # -- reading -------------------------------------------------------------------------------------------------------
    def reading_trace(self, index: int) -> Trace:
        """A chat about a board, or for two thirds of the items about a board with a way."""
        level = self.level_of(index)
        stream = self.stream(level, index, "line")
        if not stream.below(3):
            return super().reading_trace(index)
        rows = list(self.puzzle(level, index)["map"])
        way = board.nth_shortest(rows, stream.below((board.solve(rows) or (0, 1))[1]))
        state = {"map": rows, "way": way}
        pairs = stream.shuffle(
            [reading.ask("map", board.state_of(rows), stream), (stream.choice(ASKED), " ".join(way))]
        )
        return self.chat_trace(level, index, rows, [state], [view.render(state, self.skin)], pairs)
