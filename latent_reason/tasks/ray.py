"""A ray among mirrors (``ray``): find the port where it leaves the grid.

A board is JSON: ``map`` holds n rows of "/", "\\\\" and "." and ``entry`` is a port such as "W3": the side (N, E, S, W;
north is up) and the number along it, from 1, counted from the left or from the top. A state is ``{"hits", "heading"}``:
the cells of the mirrors hit so far, in order, and the ray's current direction (N, E, S, W). A ray always leaves the
grid, at another port.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Any, ClassVar

import numpy as np
from PIL import Image as PILImage

from . import canvas as c
from .base import Item, Parsed, Rejected, Step
from .checkers import Check, boxed
from .drawn import DrawnTask
from .stream import Stream
from .stream import canon as named

Cell = tuple[int, int]

WAYS = {"N": (-1, 0), "E": (0, 1), "S": (1, 0), "W": (0, -1)}
DARTS = {"N": "U", "E": "R", "S": "D", "W": "L"}
COMPASS = {"N": "north", "E": "east", "S": "south", "W": "west"}
TURNED = {
    "/": dict(zip("NESW", "ENWS", strict=True)),
    "\\": dict(zip("NESW", "WSEN", strict=True)),
    ".": dict(zip("NESW", "NESW", strict=True)),
}
BACK = dict(zip("NESW", "SWNE", strict=True))
BUDGET = 300  # largest number of cells sampled for one ray
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


def ports(n: int) -> list[str]:
    return [f"{side}{k}" for side in "NESW" for k in range(1, n + 1)]


def outside(port: str, n: int) -> Cell:
    """The cell just outside the grid at a port."""
    side, k = port[0], int(port[1:]) - 1
    return {"N": (-1, k), "S": (n, k), "W": (k, -1), "E": (k, n)}[side]


def beside(cell: Cell, way: str) -> Cell:
    return cell[0] + WAYS[way][0], cell[1] + WAYS[way][1]


def next_mirror(rows: list[str], cell: Cell, heading: str) -> tuple[Cell, str]:
    """The next mirror from a cell and the direction after it, or the cell outside the grid where the ray leaves."""
    cell = beside(cell, heading)
    while 0 <= cell[0] < len(rows) and 0 <= cell[1] < len(rows):
        if rows[cell[0]][cell[1]] != ".":
            return cell, TURNED[rows[cell[0]][cell[1]]][heading]
        cell = beside(cell, heading)
    return cell, heading


def solve(board: dict) -> tuple[list[dict], str]:
    """The states after each mirror, and the exit port."""
    rows, n = board["map"], len(board["map"])
    cell, heading = next_mirror(rows, outside(board["entry"], n), BACK[board["entry"][0]])
    states, hits = [], []
    while 0 <= cell[0] < n and 0 <= cell[1] < n:
        hits.append(list(cell))
        states.append({"hits": list(hits), "heading": heading})
        cell, heading = next_mirror(rows, cell, heading)
    return states, f"{heading}{(cell[1] if heading in 'NS' else cell[0]) + 1}"


def sample(n: int, entry: str, most: int, mirrors: int, limit: int, stream: Stream) -> list[str]:
    """Sample rows with ``mirrors`` mirrors (up to ``limit`` if the ray needs more), of which the ray hits ``most``.

    The cells on the ray are sampled first, with backtracking, when the ray enters them.
    """
    rows: dict[Cell, str] = {}
    chance, budget = max(mirrors / n**2, most / (3 * n)), BUDGET

    def leads(cell: Cell, heading: str, hits: int) -> bool:
        nonlocal budget
        while 0 <= cell[0] < n and 0 <= cell[1] < n:
            if cell not in rows:
                bends = stream.shuffle("/\\") if hits < most else []
                options = [*bends, "."] if stream.unit() < chance else [".", *bends]
                for rows[cell] in options:
                    budget -= 1
                    after = TURNED[rows[cell]][heading]
                    if budget > 0 and leads(beside(cell, after), after, hits + (rows[cell] != ".")):
                        return True
                del rows[cell]
                return False
            hits += rows[cell] != "."
            heading = TURNED[rows[cell]][heading]
            cell = beside(cell, heading)
        return hits == most

    way = BACK[entry[0]]
    if not leads(beside(outside(entry, n), way), way, 0):
        raise Rejected("other number of reflections")
    used = sum(mirror != "." for mirror in rows.values())
    if used > limit:
        raise Rejected("too many mirrors")
    rest = stream.shuffle([cell for cell in np.ndindex(n, n) if cell not in rows])
    rows.update({cell: stream.choice("/\\") for cell in rest[: max(mirrors - used, 0)]})
    return ["".join(rows.get((row, col), ".") for col in range(n)) for row in range(n)]


def crossed_borders(board: dict, hits: list[Cell]) -> list[tuple[Cell, str]]:
    """The borders that the ray crosses up to the last of ``hits``, as (cell before the border, direction). Hits that no
    real ray has are connected along the row, then along the column."""
    n = len(board["map"])
    cell, borders = outside(board["entry"], n), []
    for hit in hits:
        for axis, (less, more) in enumerate((("N", "S"), ("W", "E"))):
            while cell[axis] != hit[axis]:
                way = more if hit[axis] > cell[axis] else less
                borders.append((cell, way))
                cell = beside(cell, way)
    return borders


@cache
def mirror_mask(skin: str, mirror: str) -> np.ndarray:
    """Boolean mask of the pixels of a cell that a mirror covers."""
    look = c.LOOKS[skin]
    cell, low, high = c.blank(look.cell, look.cell), look.cell // 6, look.cell - look.cell // 6 - 1
    columns = (high, low) if mirror == "/" else (low, high)
    c.line(cell, [(low, columns[0]), (high, columns[1])], look.line, "ink")
    return cell[:, :, 0] == 0


@cache
def empty(n: int, skin: str, entry: str) -> np.ndarray:
    """Rendering of the grid without mirrors, with port numbers in a margin of half a cell. A red arrow marks the
    entry."""
    look = c.LOOKS[skin]
    side, half, scale = look.cell, look.cell // 2, look.line // 2
    sheet = c.blank((n + 1) * side, (n + 1) * side, look["paper"])
    for k in range(n + 1):
        for y, x, h, w in ((half + k * side, half, 1, n * side + 1), (half, half + k * side, n * side + 1, 1)):
            c.rectangle(sheet, y, x, h, w, look["grey"])
    for port in ports(n):
        y, x = port_middle(port, n, look)
        if port == entry:
            c.triangle(sheet, y, x, half // 2 - 1, DARTS[BACK[port[0]]], look["red"])
        else:
            c.text(sheet, y - 7 * scale // 2, x - 5 * scale // 2, port[1:], look["ink"], scale)
    return sheet


def draw_mirrors(sheet: np.ndarray, rows: Sequence[str], cells: Iterable[Cell], skin: str) -> None:
    side, n = c.LOOKS[skin].cell, len(rows)
    for row, col in cells:
        if 0 <= row < n and 0 <= col < n and rows[row][col] != ".":
            cell = sheet[side // 2 + row * side :, side // 2 + col * side :][:side, :side]
            cell[mirror_mask(skin, rows[row][col])] = c.LOOKS[skin]["ink"]


@lru_cache(maxsize=8)
def full(rows: tuple[str, ...], entry: str, skin: str) -> np.ndarray:
    sheet = empty(len(rows), skin, entry).copy()
    draw_mirrors(sheet, rows, np.ndindex(len(rows), len(rows)), skin)
    return sheet


def render(board: dict, skin: str, state: dict | None = None) -> PILImage.Image:
    """Render the grid with its mirrors. With a state, also the ray so far as a line, and a blue arrow after the last
    mirror."""
    look, sheet = c.LOOKS[skin], full(tuple(board["map"]), board["entry"], skin).copy()
    borders = crossed_borders(board, state["hits"]) if state else []
    side, edge, wide = look.cell, look.cell // 2 - 2, look.line // 2 + 1
    inside = sheet[edge:-edge, edge:-edge]  # the line starts at the inner edge of the margin
    for cell, way in borders:
        v, u = (side * (1 + k) - edge for k in beside(cell, way))
        down, across = WAYS[way]
        c.rectangle(
            inside,
            min(v, v - down * side) - wide,
            min(u, u - across * side) - wide,
            abs(down) * side + 2 * wide,
            abs(across) * side + 2 * wide,
            look["pink"],
        )
    draw_mirrors(sheet, board["map"], {beside(cell, way) for cell, way in borders}, skin)
    if state and state["hits"]:
        y, x = arrow_center(state["hits"][-1], state["heading"], look)
        c.triangle(sheet, y, x, look.cell // 6, DARTS[state["heading"]], look["blue"])
    return c.picture(sheet)


def port_middle(port: str, n: int, look: c.Look) -> Cell:
    """The center (y, x) of a port in the margin."""
    side, quarter = look.cell, look.cell // 4
    return tuple(quarter if v < 0 else (n + 1) * side - quarter if v == n else side * (v + 1) for v in outside(port, n))


def arrow_center(cell: Cell, way: str, look: c.Look) -> Cell:
    """The center of the arrow that points in direction ``way`` from the center of a cell."""
    return tuple(look.cell * (v + 1) + step * look.cell // 4 for v, step in zip(cell, WAYS[way], strict=True))


def parse(image: PILImage.Image, board: dict, skin: str) -> Parsed:
    n, look = len(board["map"]), c.LOOKS[skin]
    side, half = look.cell, look.cell // 2
    sheet = c.pixels(image, (n + 1) * side, (n + 1) * side)
    found = c.labels(sheet, (look["blue"], look["red"]))

    def share(label: int, y: int, x: int, reach: int) -> float:
        return float((found[y - reach : y + reach + 1, x - reach : x + reach + 1] == label).mean())

    darts = {
        (cell, way): share(0, *arrow_center(cell, way, look), look.cell // 6)
        for cell in np.ndindex(n, n)
        for way in WAYS
    }
    (at, heading), best = max(darts.items(), key=lambda entry: entry[1])
    if best < 0.2 or sum(other > best / 2 for (cell, _), other in darts.items() if cell != at):
        return Parsed(None, 0.0, ("no single blue arrow",))
    entries = {port: share(1, *port_middle(port, n, look), half // 2 - 1) for port in ports(n)}
    entry = max(entries, key=entries.get)
    faults = []
    if entries[entry] < 0.2:
        return Parsed(None, 0.0, ("no red arrow where the ray enters",))
    if entry != board["entry"]:
        faults.append("the ray enters elsewhere")

    rows = [
        "".join(mirror_at(sheet[half + row * side :, half + col * side :][:side, :side], look) for col in range(n))
        for row in range(n)
    ]
    changed = sum(a != b for a, b in zip("".join(rows), "".join(board["map"]), strict=True))
    if changed:
        faults.append(f"{changed} cells changed")

    lit = set()
    for row, col in np.ndindex(n + 1, n + 1):
        for way, free in (("N", col < n), ("W", row < n)):
            y, x = half + row * side + (way == "W") * half, half + col * side + (way == "N") * half
            if free and has_ray_color(sheet[y - 1 : y + 2, x - 1 : x + 2], look):
                lit.add(frozenset(((row, col), beside((row, col), way))))
    cell, way, hits = outside(entry, n), BACK[entry[0]], []
    while (border := frozenset((cell, beside(cell, way)))) in lit:
        lit.remove(border)
        cell = beside(cell, way)
        mirror = rows[cell[0]][cell[1]] if 0 <= cell[0] < n and 0 <= cell[1] < n else "."
        if mirror != ".":
            hits.append(list(cell))
            way = TURNED[mirror][way]
    if lit or not hits or hits[-1] != list(at) or list(cell) != list(at) or way != heading:
        return Parsed(None, best, (*faults, "the line does not lead from the entry to the blue arrow"))
    return Parsed({"hits": hits, "heading": heading}, best, tuple(faults))


def mirror_at(cell: np.ndarray, look: c.Look) -> str:
    """The mirror in the image of a cell, from the ends of its two diagonals. "?" if both are dark."""
    light, dark = sum(look["paper"]) / 3, sum(look["ink"]) / 3
    reach, middle = look.cell * 9 // 32, look.cell // 2
    ink = {}
    for mirror, across in (("/", -1), ("\\", 1)):
        ends = [
            cell[middle + k - 1 : middle + k + 1, middle + across * k - 1 : middle + across * k + 1]
            for k in (-reach, 1 - reach, reach - 1, reach)
        ]
        ink[mirror] = (light - np.mean(ends)) / (light - dark) > 0.35
    return "?" if all(ink.values()) else next((mirror for mirror, is_dark in ink.items() if is_dark), ".")


def has_ray_color(patch: np.ndarray, look: c.Look) -> bool:
    """Whether the patch around the center of a border has the ray's color instead of the grid's."""
    grid = (2 * np.array(look["paper"]) + look["grey"]) / 3
    colour = patch.mean((0, 1))
    return np.abs(colour - look["pink"]).sum() < np.abs(colour - grid).sum()


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
    swaps: ClassVar = (tuple(COMPASS.values()),)

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
        return self.make_item(
            level,
            index,
            puzzle,
            [render(puzzle, self.skin)],
            question,
            steps,
            answer,
            self.name,
            meta,
        )

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
        side, number = item.answer
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
