"""A ray among mirrors (``ray``): find the port where it leaves the grid.

A board is JSON: ``map`` holds n rows of "/", "\\\\" and "." and ``entry`` is a port such as "W3": the side (N, E, S, W;
north is up) and the number along it, from 1, counted from the left or from the top. A state is ``{"hits", "heading"}``:
the cells of the mirrors hit so far, in order, and the ray's current direction (N, E, S, W). A ray always leaves the
grid, at another port.
"""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar

from PIL import Image as PILImage

from .checkers import Check, boxed
from .drawn import DrawnTask
from .item import Item, Parsed, Step
from .ray_rules import (
    BACK,
    COMPASS,
    next_mirror,
    outside,
    ports,
    sample,
    solve,
)
from .ray_view import (
    parse,
    render,
)
from .stream import Stream
from .stream import canon as named

QUESTIONS = (
    "Where does the ray leave the grid?",
    "At which port does the ray come out?",
    "Follow the ray. Which port does it leave by?",
    "Through which port does the ray leave?",
    "Find the port where the ray ends.",
    "The red arrow is a ray. Where does it leave?",
)
RULE = "Name the side (N, E, S, W) and the number."
BENDS = (
    "The ray runs {old}, meets a mirror and turns {new}.",
    "Going {old} it meets a mirror that sends it {new}.",
    "It goes {old} up to a mirror, then {new}.",
    "A mirror turns it from {old} to {new}.",
    "Going {old} it is bent by a mirror and goes {new}.",
)
PLACES = (
    "The mirror is at {cell}.",
    "That is at {cell}.",
    "This happens at {cell}.",
    "The bend is at {cell}.",
    "Now it is at {cell}.",
)
EXITS = (
    "It runs {way} out of the grid.",
    "Going {way} it leaves.",
    "It goes {way} and meets no more mirror.",
    "The ray leaves, going {way}.",
    "Nothing stops it on the way {way}.",
)
STATES = (
    "The ray was turned at {cells} and goes {way}.",
    "Mirrors met: {cells}. The ray goes {way}.",
    "So far it met {cells}; now it goes {way}.",
    "The line bends at {cells} and ends in an arrow to the {way}.",
    "Bends at {cells}, then {way}.",
)


class Ray(DrawnTask):
    """Name the port where the ray leaves. Level = number of reflections.

    ``n``: cells per side (4 to 9). ``density``: smallest and largest fraction of cells with mirrors. A sketch follows
    each reflection, but not the exit.
    """

    name = "ray"
    redraws = True
    trained = (1, 2, 3, 4, 5, 6, 7, 8)
    ood: ClassVar = {
        "size": {"n": 8},
        "skin": {"skin": "other"},
        "composition": {"density": (0.4, 0.5)},
        "length": {"level": (9, 12)},
    }
    swaps = (tuple(COMPASS.values()),)

    def __init__(self, *, n: int = 6, density: tuple[float, float] = (0.15, 0.35), **options):
        super().__init__(**options)
        if not 4 <= n <= 9:
            raise ValueError(f"n is the number of cells per side, 4 to 9; got {n}.")
        if not 0 < density[0] <= density[1] <= 0.6:
            raise ValueError(f"density is a pair of increasing fractions above 0 and up to 0.6; got {density}.")
        self.mirrors = math.ceil(density[0] * n * n), math.floor(density[1] * n * n)
        if self.mirrors[0] > self.mirrors[1]:
            raise ValueError(f"no number of mirrors on {n}x{n} cells has a density within {density}")
        most = min(2 * n, self.mirrors[1])
        if not all(1 <= level <= most for level in self.levels):
            raise ValueError(
                f"the level is the number of reflections, 1 to {most} for this n and density; got {self.levels}"
            )
        self.n = n

    def targets(self, level: int, stream: Stream) -> str:
        return stream.choice(ports(self.n))

    def draw(self, level: int, targets: str, stream: Stream) -> dict:
        rows = sample(self.n, targets, level, stream.between(*self.mirrors), self.mirrors[1], stream)
        return {"map": rows, "entry": targets}

    def canon(self, puzzle: dict) -> str:
        return named("ray/1", puzzle)

    def verify(self, puzzle: dict, targets: str) -> None:
        """Nothing to test: ``draw`` samples until the ray hits the target number of mirrors."""

    def build(self, puzzle: dict, level: int, index: int) -> Item:
        stream = self.stream(level, index, "text")
        states, answer = solve(puzzle)
        question = f"{stream.choice(QUESTIONS)} {RULE}"
        steps, heading = [], BACK[puzzle["entry"][0]]
        for state in states:
            text = stream.choice(BENDS).format(old=COMPASS[heading], new=COMPASS[state["heading"]])
            if stream.unit() >= self.omit_state_p:
                text = f"{text} {stream.choice(PLACES).format(cell=cell_words(state['hits'][-1]))}"
            steps.append(Step(text, render(puzzle, self.skin, state), state))
            heading = state["heading"]
        steps.append(Step(stream.choice(EXITS).format(way=COMPASS[heading]), None, states[-1]))
        meta = {"board": puzzle, "skin": self.skin, "checker": self.name, "exit": answer}
        return self.make_item(level, index, puzzle, [render(puzzle, self.skin)], question, steps, answer, meta)

    def state_sentence(self, state: dict, stream: Stream) -> str:
        cells = " ".join(f"({row + 1},{col + 1})" for row, col in state["hits"])
        return stream.choice(STATES).format(cells=cells or "no mirror", way=COMPASS[state["heading"]])

    def in_words(self, item: Item) -> str:
        board = item.meta["board"]
        mirrors = [
            f"{mirror} at {cell_words((row, col))}"
            for row, line in enumerate(board["map"])
            for col, mirror in enumerate(line)
            if mirror != "."
        ]
        return (
            f"The grid has {len(board['map'])} rows and as many columns; north is up. Ports are numbered from the "
            f"left and from the top. Mirrors: {', '.join(mirrors)}. The ray enters at port {board['entry']}, going "
            f"{COMPASS[BACK[board['entry'][0]]]}."
        )

    def render_state(self, item: Item, state: dict) -> PILImage.Image:
        return render(item.meta["board"], item.meta["skin"], state)

    def parse_sketch(self, image: PILImage.Image, meta: dict) -> Parsed:
        return parse(image, meta["board"], meta["skin"])

    def wrong(self, item: Item) -> list[str]:
        side, number = item.answer[0], item.answer[1]
        return [port for port in ports(self.n) if port != item.answer and (port[0] == side or port[1] == number)]

    def check(self, text: str, meta: dict) -> Check:
        """Correct if the boxed port is the exit. ``partial`` is 0.5 if only the side is correct."""
        found = re.fullmatch(r"\s*([NESWnesw])\s*([1-9])\s*", boxed(text) or "")
        if not found:
            return Check(False, 0.0, "no_port")
        port, gold = found[1].upper() + found[2], meta["exit"]
        if port == gold:
            return Check(True, 1.0, "right", port)
        return Check(False, 0.5, "wrong number", port) if port[0] == gold[0] else Check(False, 0.0, "wrong side", port)

    def score(self, text: str, meta: dict) -> dict[str, float]:
        """``accuracy`` of the port, and of its ``side`` alone."""
        result = self.check(text, meta)
        return {"accuracy": float(result.ok), "side": float(result.partial > 0)}

    # -- states in the model's text ------------------------------------------------------------------------------------
    def said_heading(self, text: str) -> str | None:
        """The last direction that the text names."""
        words = re.findall("|".join(COMPASS.values()), text)
        return words[-1][0].upper() if words else None

    def shown(self, item: Item) -> dict:
        return {"hits": [], "heading": BACK[item.meta["board"]["entry"][0]]}

    def state_said(self, item: Item, said: list[str]) -> Any:
        """The direction from the text, with the hits of the gold state, because the text need not state the cell."""
        gold = super().state_said(item, said)
        return gold and {**gold, "heading": self.said_heading(said[-1]) or gold["heading"]}

    def legal(self, item: Item, before: dict | None, said: str, after: dict) -> bool:
        if before is None or self.said_heading(said) != after["heading"]:
            return False
        board = item.meta["board"]
        here = tuple(before["hits"][-1]) if before["hits"] else outside(board["entry"], len(board["map"]))
        cell, heading = next_mirror(board["map"], here, before["heading"])
        return after == {"hits": [*before["hits"], list(cell)], "heading": heading}


def cell_words(cell) -> str:
    return f"row {cell[0] + 1} column {cell[1] + 1}"
