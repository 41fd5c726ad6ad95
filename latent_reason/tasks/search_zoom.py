"""``search_zoom``: find one object among many and read it. Its sketches only repeat the image: a negative control.

A canvas of ``side`` x ``side`` cells holds objects such as a "red square K": a colored outline around a letter. The
first sketch adds a box of 4 x 4 cells around the target object. The second is that region enlarged to full size. Both
are ``redundant``: they contain nothing that is not in the image. Rows and columns count from 1.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import product
from typing import Any, ClassVar

import numpy as np
from PIL import Image as PILImage

from . import canvas
from .checkers import Check, boxed
from .drawn import DrawnTask
from .item import Item, Parsed, Step
from .stream import Stream, canon

WINDOW = 4  # cells per side of the box
HUES = ("red", "green", "blue", "grey", "purple", "orange", "cyan")  # the box is pink
SHAPES = ("circle", "square")
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
NAMES = ["", *map(" ".join, product(HUES, SHAPES, LETTERS))]
CODES = {name: code for code, name in enumerate(NAMES)}
HELD_OUT = {("blue", "square"), ("orange", "circle"), ("green", "circle")}  # no training question is about these pairs
WAYS = {"above": (-1, 0), "below": (1, 0), "left of": (0, -1), "right of": (0, 1)}
LIKE = 0.7  # smallest fraction of a cell's pixels that match its template
OFF, MOST_OFF = 20, 0.05  # tolerance of a cell's mean color, and the largest fraction of cells outside it

QUESTIONS = {
    "letter": (
        "Which letter stands in the {what}?",
        "Read the letter in the {what}.",
        "What letter does the {what} hold?",
        "Find the {what}. Which letter is in it?",
        "There is one {what}. What is its letter?",
    ),
    "colour": (
        "What colour is the {what}?",
        "Which colour has the {what}?",
        "Name the colour of the {what}.",
        "Find the {what}. What is its colour?",
        "There is one {what}. What colour is it?",
    ),
    "neighbour": (
        "Which letter stands directly {way} the {what}?",
        "Read the letter directly {way} the {what}.",
        "What letter is in the thing directly {way} the {what}?",
        "Find the {what}. Which letter is directly {way} it?",
        "There is one {what}. What letter stands directly {way} it?",
    ),
}
FINDS = (
    "Search for the {what}.",
    "Look for the {what}.",
    "First find the {what}.",
    "Where is the {what}?",
    "Find the {what} on the canvas.",
)
ZOOMS = (
    "Zoom in on the box.",
    "Enlarge the box.",
    "Look closer at the box.",
    "Make the box larger.",
    "Take a closer look inside the box.",
)
BOXES = (
    "The box lies around rows {top} to {bottom}, columns {left} to {right}.",
    "Box: rows {top} to {bottom}, columns {left} to {right}.",
    "Rows {top} to {bottom} and columns {left} to {right} are in the box.",
    "There is one box, rows {top} to {bottom}, columns {left} to {right}.",
    "Now the box holds rows {top} to {bottom} and columns {left} to {right}.",
)
CROPS = (
    "The part shows {things}.",
    "Enlarged: {things}.",
    "In the part one sees {things}.",
    "The enlarged part holds {things}.",
    "Closer by: {things}.",
)
NAMED = re.compile(rf"(?:({'|'.join(HUES)}) )?({'|'.join(SHAPES)})(?: with the letter ([{LETTERS}])\b)?")


def grid_of(things: list[list], side: int) -> np.ndarray:
    """(side, side) codes of the objects ``[row, column, name]``, 0 for empty cells."""
    grid = np.zeros((side, side), int)
    for row, column, name in things:
        grid[row - 1, column - 1] = CODES[name]
    return grid


def objects_in_box(things: list[list], box: list[int]) -> list[list]:
    """The objects in a box with their rows and columns relative to it. ``box``: its first row and column."""
    return [
        [row - box[0] + 1, column - box[1] + 1, name]
        for row, column, name in things
        if 0 <= row - box[0] < WINDOW and 0 <= column - box[1] < WINDOW
    ]


def matches_description(name: str, what: str) -> bool:
    """Whether a description such as "red square" or "square with the letter K" matches an object."""
    hue, shape, letter = name.split()
    said = NAMED.fullmatch(what)
    return said is not None and said[2] == shape and said[1] in (None, hue) and said[3] in (None, letter)


def solve(puzzle: dict) -> tuple[list[list], str]:
    """(objects that match the description in the question, answer). A valid puzzle has one such object."""
    query = puzzle["query"]
    found = [thing for thing in puzzle["things"] if matches_description(thing[2], query["what"])]
    row, column, name = found[0]
    if query["kind"] == "neighbour":
        y, x = WAYS[query["way"]]
        name = next(thing[2] for thing in puzzle["things"] if thing[:2] == [row + y, column + x])
    return found, name.split()[0 if query["kind"] == "colour" else 2]


# -- images ------------------------------------------------------------------------------------------------------------
@cache
def sprites(skin: str) -> np.ndarray:
    """(337, cell, cell, 3) rendering of a cell for each code."""
    look = canvas.LOOKS[skin]
    cell, middle, r, scale = look.cell, look.cell // 2, look.cell * 3 // 8, look.cell // 16
    made = np.stack([canvas.blank(cell, cell, look["paper"])] * len(NAMES))
    for tile, name in zip(made[1:], NAMES[1:], strict=True):
        hue, shape, letter = name.split()
        for radius, colour in ((r, look[hue]), (r - cell // 10, look["paper"])):
            if shape == "circle":
                canvas.disc(tile, middle, middle, radius, colour)
            else:
                canvas.rectangle(tile, middle - radius, middle - radius, 2 * radius + 1, 2 * radius + 1, colour)
        canvas.text(tile, middle - 7 * scale // 2, middle - 5 * scale // 2, letter, look["ink"], scale)
    return made


def paint(grid: np.ndarray, skin: str) -> np.ndarray:
    cell, (rows, columns) = canvas.LOOKS[skin].cell, grid.shape
    return sprites(skin)[grid].transpose(0, 2, 1, 3, 4).reshape(rows * cell, columns * cell, 3)


class SearchZoom(DrawnTask):
    """Find an object and name its letter, its color or its neighbor's letter. A level has 40 + 20 x level objects.

    ``side``: cells per side, a multiple of 4; the number of objects grows with its square. ``pairs``: "train", or
    "held_out" for pairs of color and shape that no training question is about.
    """

    name = "search_zoom"
    version = 1
    trained = (1, 2, 3)
    ood: ClassVar = {
        "size": {"side": 32},
        "skin": {"skin": "other"},
        "composition": {"pairs": "held_out"},
        "crowd": {"level": 5},
    }
    swaps = (HUES, SHAPES, tuple(LETTERS))

    def __init__(self, *, side: int = 16, pairs: str = "train", **options):
        super().__init__(**options)
        if not all(1 <= level <= 5 for level in self.levels):
            raise ValueError(f"The level is 1 to 5, with more objects per level; got {self.levels}.")
        if side % WINDOW or not 8 <= side <= 64:
            raise ValueError(f"side is the number of cells per side, a multiple of {WINDOW} from 8 to 64; got {side}.")
        if pairs not in ("train", "held_out"):
            raise ValueError(f"pairs is train or held_out; got {pairs!r}.")
        self.side, self.pairs = side, pairs

    # -- puzzles -------------------------------------------------------------------------------------------------------
    def targets(self, level: int, stream: Stream) -> dict:
        """The target object, its cell, the type of question and the target's neighbor."""
        pairs = [p for p in product(HUES, SHAPES) if (p in HELD_OUT) == (self.pairs == "held_out")]
        (hue, shape), letter = stream.choice(pairs), stream.choice(LETTERS)
        kind, way = stream.choice(list(QUESTIONS)), stream.choice(list(WAYS))
        query = {"kind": kind, "what": f"{shape} with the letter {letter}" if kind == "colour" else f"{hue} {shape}"}
        if kind == "neighbour":
            query["way"] = way
        # the target is not in the outermost rows and columns, so that the box fits
        row, column = stream.between(3, self.side - 2), stream.between(3, self.side - 2)
        return {
            "query": query,
            "thing": [row, column, f"{hue} {shape} {letter}"],
            "beside": [row + WAYS[way][0], column + WAYS[way][1], stream.choice(LETTERS)],
        }

    def draw(self, level: int, targets: dict, stream: Stream) -> dict:
        others = codes_without(targets["query"]["what"])
        row, column, letter = targets["beside"]
        beside = stream.choice([NAMES[code] for code in others if NAMES[code][-1] == letter])
        cells = {tuple(targets["thing"][:2]): targets["thing"][2], (row, column): beside}
        while len(cells) < (40 + 20 * level) * self.side**2 // 256:
            cell = stream.between(2, self.side - 1), stream.between(2, self.side - 1)
            if cell not in cells:
                cells[cell] = NAMES[stream.choice(others)]
        return {
            "side": self.side,
            "things": [[*cell, cells[cell]] for cell in sorted(cells)],
            "query": targets["query"],
        }

    def canon(self, puzzle: dict) -> str:
        return canon("search_zoom/1", puzzle)

    def verify(self, puzzle: dict, targets: dict) -> None:
        """Nothing to test: ``draw`` samples puzzles with exactly one matching object."""

    # -- items ---------------------------------------------------------------------------------------------------------
    def build(self, puzzle: dict, level: int, index: int) -> Item:
        stream, query = self.stream(level, index, "text"), puzzle["query"]
        [(row, column, _)], answer = solve(puzzle)
        box = [min(max(at - stream.between(1, 2), 2), self.side - WINDOW) for at in (row, column)]
        states = [{"view": "box", "box": box}, {"view": "part", "things": objects_in_box(puzzle["things"], box)}]
        meta = {"skin": self.skin, "checker": self.name, **puzzle}
        steps = []
        for wordings, state in zip((FINDS, ZOOMS), states, strict=True):
            text = stream.choice(wordings).format(**query)
            if stream.unit() >= self.omit_state_p:
                text = f"{text} {self.state_sentence(state, stream)}"
            steps.append(Step(text, drawing(state, meta), state, True))
        question = stream.choice(QUESTIONS[query["kind"]]).format(**query)
        image = canvas.picture(paint(grid_of(puzzle["things"], self.side), self.skin))
        return self.make_item(level, index, puzzle, [image], question, steps, answer, meta)

    def state_sentence(self, state: dict, stream: Stream) -> str:
        if state["view"] == "box":
            top, left = state["box"]
            return stream.choice(BOXES).format(top=top, bottom=top + WINDOW - 1, left=left, right=left + WINDOW - 1)
        return stream.choice(CROPS).format(things=format_objects(state["things"]))

    def in_words(self, item: Item) -> str:
        return f"On the canvas: {format_objects(item.meta['things'])}."

    def render_state(self, item: Item, state: dict) -> PILImage.Image:
        return drawing(state, item.meta)

    def box(self, item: Item) -> tuple[float, float, float, float]:
        top, left = (at - 1 for at in item.steps[0].state["box"])
        return tuple(at / item.meta["side"] for at in (left, top, left + WINDOW, top + WINDOW))

    def parse_sketch(self, image: PILImage.Image, meta: dict) -> Parsed:
        """An image with a pink box is parsed as the whole canvas and compared with the problem's. Any other image is
        parsed as an enlarged region."""
        look, side = canvas.LOOKS[meta["skin"]], meta["side"]
        found = canvas.pixels(image, side * look.cell, side * look.cell)
        pink = canvas.labels(found, [look["pink"]]) == 0
        long = WINDOW * look.cell // 2
        rows, columns = np.flatnonzero(pink.sum(1) > long), np.flatnonzero(pink.sum(0) > long)
        if rows.size and columns.size:
            return box_in(found, rows, columns, meta)
        cell, edge, many = look.cell, look.cell // 10, side // WINDOW
        pixels = [found[y::many, x::many].astype(np.int32) for y, x in product(range(many), repeat=2)]
        part = (sum(pixels) // many**2).astype(np.int16)
        cells = part.reshape(WINDOW, cell, WINDOW, cell, 3).transpose(0, 2, 1, 3, 4).reshape(-1, cell, cell, 3)
        cells, drawn = (a[:, edge:-edge, edge:-edge].astype(np.int16) for a in (cells, sprites(meta["skin"])))
        best = np.stack([np.abs(cells - one).sum((1, 2, 3), dtype=np.int32) for one in drawn]).argmin(0)
        alike = (np.abs(cells - drawn[best]).max(-1) <= canvas.NEAR).mean((1, 2))
        things = [[i // WINDOW + 1, i % WINDOW + 1, NAMES[code]] for i, code in enumerate(best) if code]
        faults = [f"row {i // WINDOW + 1} column {i % WINDOW + 1} is not clear" for i in np.flatnonzero(alike < LIKE)]
        if not any(
            objects_in_box(meta["things"], [y, x]) == things for y, x in product(range(1, side - WINDOW + 2), repeat=2)
        ):
            faults.append("no part of the canvas")
        return Parsed({"view": "part", "things": things}, float(alike.min()), tuple(faults))

    # -- answers -------------------------------------------------------------------------------------------------------
    def check(self, text: str, meta: dict) -> Check:
        """The answer is one letter or one color, case-insensitive, with an optional period."""
        said = (boxed(text) or "").strip().rstrip(".").upper()
        if said.lower() not in HUES and (len(said) != 1 or said not in LETTERS):
            return Check(False, 0.0, "no_answer")
        ok = said == solve(meta)[1].upper()
        return Check(ok, float(ok), "right" if ok else "wrong", said if len(said) == 1 else said.lower())

    def score(self, text: str, meta: dict) -> dict[str, float]:
        return {"accuracy": self.check(text, meta).partial}

    def wrong(self, item: Item) -> list[str]:
        return [a for a in (HUES if item.state["query"]["kind"] == "colour" else LETTERS) if a != item.answer]

    def kind(self, item: Item) -> str:
        return item.meta["query"]["kind"]

    def legal(self, item: Item, before: Any, said: str, after: dict) -> bool:
        """A box must contain the object that the text names. A region must be the content of the preceding box."""
        if after["view"] == "part":
            return (
                bool(before)
                and before["view"] == "box"
                and after["things"] == objects_in_box(item.meta["things"], before["box"])
            )
        what = NAMED.search(said)
        return what is not None and any(
            matches_description(name, what[0]) for _, _, name in objects_in_box(item.meta["things"], after["box"])
        )


def drawing(state: dict, meta: dict) -> PILImage.Image:
    """Render the canvas with a box, or the region in a box enlarged to the size of the canvas."""
    skin, side, look = meta["skin"], meta["side"], canvas.LOOKS[meta["skin"]]
    if state["view"] == "part":
        part = paint(grid_of(state["things"], WINDOW), skin)
        return canvas.picture(part.repeat(side // WINDOW, 0).repeat(side // WINDOW, 1))
    full = paint(grid_of(meta["things"], side), skin)
    top, left = ((at - 1) * look.cell - look.line for at in state["box"])
    wide = WINDOW * look.cell + 2 * look.line
    canvas.frame(full, top, left, wide, wide, 2 * look.line, look["pink"])
    return canvas.picture(full)


def box_in(found: np.ndarray, rows: np.ndarray, columns: np.ndarray, meta: dict) -> Parsed:
    """The box with its sides in these pixel rows and columns, if the canvas behind it is the problem's."""
    side, look = meta["side"], canvas.LOOKS[meta["skin"]]
    wide, box = WINDOW * look.cell, []
    for at in (rows, columns):
        box.append(round(float(at[0] + at[-1] + 1 - wide) / 2 / look.cell) + 1)
        if abs(at[-1] - at[0] - wide) > look.cell or not 1 <= box[-1] <= side - WINDOW + 1:
            return Parsed(None, 0.0, ("no box of the right size",))
    state = {"view": "box", "box": box}
    means = [
        a.reshape(side, look.cell, side, look.cell, 3).mean((1, 3)) for a in (found, np.asarray(drawing(state, meta)))
    ]
    off = float((np.abs(means[0] - means[1]).max(-1) > OFF).mean())
    return Parsed(state, 1 - off, ("another canvas",) if off > MOST_OFF else ())


@cache
def codes_without(what: str) -> list[int]:
    """The codes of all objects that a description does not match."""
    return [code for code, name in enumerate(NAMES) if name and not matches_description(name, what)]


def format_objects(things: list[list]) -> str:
    """The objects in text, row by row."""
    rows = [
        f"row {y}: " + ", ".join(f"{name} in column {x}" for at, x, name in things if at == y)
        for y in sorted({row for row, _, _ in things})
    ]
    return "; ".join(rows) or "nothing"
