"""``dice_net``: a die rolls over a board; find its final top face. Only the image shows the initial orientation.

The numbers of a die may be in any order. The image lists the three pairs of opposite faces, so the three visible faces
determine the hidden ones. A sketch shows the board and the die after a roll.
"""

from __future__ import annotations

import re
from functools import cache
from typing import ClassVar

import numpy as np
from PIL import Image as PILImage

from .canvas import LOOKS, Look, blank, frame, labels, line, majority, picture, pixels, polygon_mask, rectangle, text
from .checkers import Check, one_of
from .drawn import DrawnTask
from .item import Item, Parsed, Rejected, Step
from .stream import Stream, canon

WAYS = {"north": (-1, 0), "east": (0, 1), "south": (1, 0), "west": (0, -1)}
BACK = {"north": "south", "south": "north", "east": "west", "west": "east"}
FACES = ("top", "front", "right")
FAR = 25  # largest mean difference (0-255) between an image and the rendering of its parsed state

QUESTIONS = (
    "The die rolls {ways}. Which number is on top at the end?",
    "Roll the die {ways}. What is on top then?",
    "Which face is up after the die rolls {ways}?",
    "The die is rolled {ways}. Which number is up?",
    "After the rolls {ways}, what does the top of the die show?",
    "Find the top face once the die went {ways}.",
)
ROLLS = ("Roll {way}.", "It rolls {way}.", "The die rolls {way}.", "Next it goes {way}.", "Then a roll {way}.")
FACE_CLAUSES = (
    "Now {top} is on top, {front} in front, {right} on the right.",
    "Top {top}, front {front}, right {right}.",
    "The top is {top}, the front {front}, the right {right}.",
    "It shows {top} on top, {front} in front and {right} on the right.",
    "We see {top} above, {front} in front, {right} to the right.",
)
STATES = (
    "The die is at row {row} column {column}: top {top}, front {front}, right {right}.",
    "Row {row} column {column} holds the die with {top} on top, {front} in front, {right} on the right.",
    "At row {row} column {column} the die shows top {top}, front {front}, right {right}.",
    "The die lies at row {row} column {column}, {top} up, {front} in front, {right} on the right.",
    "Die at row {row} column {column}; on top {top}, in front {front}, on the right {right}.",
)


def roll_die(state: dict, way: str, opposite: dict[int, int]) -> dict:
    """The state after one roll. The cell may be off the board."""
    top, front, right = (state[f] for f in FACES)
    top, front, right = {
        "north": (front, opposite[top], right),
        "south": (opposite[front], top, right),
        "east": (opposite[right], front, top),
        "west": (right, front, opposite[top]),
    }[way]
    (row, column), (y, x) = state["cell"], WAYS[way]
    return {"cell": [row + y, column + x], "top": top, "front": front, "right": right}


def opposites(pairs: list[list[int]]) -> dict[int, int]:
    return {a: b for pair in pairs for a, b in (pair, pair[::-1])}


def walk(puzzle: dict, ways: list[str]) -> list[dict]:
    """The start and the state after each roll."""
    states, opposite = [puzzle["start"]], opposites(puzzle["pairs"])
    for way in ways:
        states.append(roll_die(states[-1], way, opposite))
    return states


def ways_in(words: str) -> list[str]:
    return re.findall(r"\b(?:north|east|south|west)\b", words.lower())


# -- images ------------------------------------------------------------------------------------------------------------
def digit_corners(n: int, look: Look) -> dict[str, tuple[int, int]]:
    """Top left corners (y, x) of the digits beside the board: the visible faces, then the pairs."""
    c = look.cell
    side, deep, x, y = 3 * c // 2, 3 * c // 4, n * c + 3 * c // 8, 3 * c // 8
    found = {
        "top": (y + deep // 2 - 7, x + deep // 2 + side // 2 - 5),
        "front": (y + deep + side // 2 - 7, x + side // 2 - 5),
        "right": (y + deep // 2 + side // 2 - 7, x + side + deep // 2 - 5),
    }
    for k in range(3):
        row = n * c - (3 - k) * 3 * c // 4
        found |= {f"pair{2 * k}": (row, n * c + c), f"pair{2 * k + 1}": (row, n * c + c + 24)}
    return found


def empty_board(n: int, look: Look) -> np.ndarray:
    """Rendering of an empty board and a die without numbers beside it."""
    c = look.cell
    canvas = blank(n * c, (n + 3) * c, look["paper"])
    for k in range(n + 1):
        at = min(k * c, n * c - 1)
        rectangle(canvas, at, 0, 1, n * c, look["grey"])
        rectangle(canvas, 0, at, n * c, 1, look["grey"])
    side, deep, x, y = 3 * c // 2, 3 * c // 4, n * c + 3 * c // 8, 3 * c // 8
    box = (y, x, y + deep + side, x + deep + side)
    polygon_mask(
        canvas,
        lambda v, u: (v < y + deep) & (abs(2 * (u - x) - 2 * (y + deep - v) - side) <= side),
        box,
        look["yellow"],
    )
    polygon_mask(
        canvas, lambda v, u: (u > x + side) & (abs(2 * (v - y + u - x - side - deep) - side) <= side), box, look["cyan"]
    )
    frame(canvas, y + deep, x, side + 1, side + 1, 1, look["ink"])
    line(
        canvas,
        [(y + deep, x), (y, x + deep), (y, x + deep + side), (y + side, x + deep + side), (y + deep + side, x + side)],
        1,
        look["ink"],
    )
    line(canvas, [(y + deep, x + side), (y, x + deep + side)], 1, look["ink"])
    for k in range(3):
        row, column = digit_corners(n, look)[f"pair{2 * k}"]
        text(canvas, row, column + 12, "-", look["ink"], 2)
    return canvas


@cache
def grounds(n: int, skin: str) -> np.ndarray:
    return empty_board(n, LOOKS[skin])


def drawing(state: dict, pairs: list[list[int]], n: int, skin: str) -> np.ndarray:
    look, canvas = LOOKS[skin], grounds(n, skin).copy()
    c = look.cell
    top, left = (v * c for v in state["cell"])
    rectangle(canvas, top + 2, left + 2, c - 3, c - 3, look["yellow"])
    frame(canvas, top + 2, left + 2, c - 3, c - 3, look.line // 2, look["ink"])
    text(canvas, top + c // 2 - 7, left + c // 2 - 5, str(state["top"]), look["ink"], 2)
    listed = [number for pair in pairs for number in pair]
    digits = {f: state[f] for f in FACES} | {f"pair{k}": number for k, number in enumerate(listed)}
    for place, (y, x) in digit_corners(n, look).items():
        text(canvas, y, x, str(digits[place]), look["ink"], 2)
    return canvas


@cache
def digit_masks() -> np.ndarray:
    """(6, 14, 10) masks of the digits 1 to 6."""
    masks = np.zeros((6, 14, 10), np.int16)
    for k in range(6):
        text(masks[k], 0, 0, str(k + 1), 1, 2)
    return masks


def digit(canvas: np.ndarray, y: int, x: int, ink: tuple[int, int, int]) -> tuple[int, float]:
    """(digit from 1 to 6 at a position, confidence). Confidence 0: a second digit fits equally well."""
    distance = np.abs(canvas[y : y + 14, x : x + 10].astype(np.int16) - np.array(ink, np.int16)).sum(-1)
    dark = (1 - distance / max(distance.max(), 1)).astype(np.float32)
    off = np.abs(digit_masks() - dark).mean((1, 2))
    best, second = np.sort(off)[:2]
    return int(off.argmin()) + 1, float(1 - best / max(second, 1e-6))


class DiceNet(DrawnTask):
    """Name the top face of a die after rolls. Level = number of rolls, at least 1.

    ``n``: cells per side of the board. ``kinds``: minimum and maximum number of different directions in one item (short
    sequences have fewer than the maximum). No roll undoes the previous one.
    """

    name = "dice_net"
    version = 1
    trained = (1, 2, 3, 4, 5, 6, 7, 8)
    ood: ClassVar = {
        "size": {"level": (10, 12, 16)},
        "skin": {"skin": "other"},
        "composition": {"level": (6, 8), "kinds": (4, 4)},
    }
    swaps = (tuple(WAYS), tuple("123456"))

    def __init__(self, *, n: int = 5, kinds: tuple[int, int] = (1, 3), **options):
        super().__init__(**options)
        if not 5 <= n <= 8:
            raise ValueError(f"n is the number of cells per side, 5 to 8; got {n}.")
        if not 1 <= kinds[0] <= kinds[1] <= 4 or min(self.levels) < kinds[0]:
            raise ValueError(f"kinds must be 1 to 4 and at most the level; got kinds={kinds}, level={self.levels}.")
        if max(self.levels) > 4 * n:
            raise ValueError(f"level={self.levels} is too large: at most {4 * n} rolls fit on a {n}x{n} board.")
        self.n, self.kinds = n, tuple(kinds)

    def targets(self, level: int, stream: Stream) -> None:
        return None

    def draw(self, level: int, targets: None, stream: Stream) -> dict:
        numbers = stream.shuffle(range(1, 7))
        pairs = [numbers[:2], numbers[2:4], numbers[4:]]
        cell, ways = [stream.below(self.n), stream.below(self.n)], stream.shuffle(list(WAYS))[: self.kinds[1]]
        moves: list[str] = []
        start = {"cell": cell, **{f: pair[0] for f, pair in zip(FACES, pairs, strict=True)}}
        for _ in range(level):
            fits = [
                w
                for w in ways
                if moves[-1:] != [BACK[w]] and all(0 <= v + d < self.n for v, d in zip(cell, WAYS[w], strict=True))
            ]
            if not fits:
                raise Rejected("no way on")
            moves.append(stream.choice(fits))
            cell = [v + d for v, d in zip(cell, WAYS[moves[-1]], strict=True)]
        return {"start": start, "pairs": sorted(sorted(p) for p in pairs), "moves": moves}

    def canon(self, puzzle: dict) -> str:
        """The canonical string does not depend on the die's position on the board."""
        return canon(
            "dice_roll/1",
            {"faces": [puzzle["start"][f] for f in FACES], "pairs": puzzle["pairs"], "moves": puzzle["moves"]},
        )

    def verify(self, puzzle: dict, targets: None) -> None:
        if len(set(puzzle["moves"])) < self.kinds[0]:
            raise Rejected("too few directions")
        if puzzle["start"] in walk(puzzle, puzzle["moves"])[1:]:
            raise Rejected("back at the start")

    def build(self, puzzle: dict, level: int, index: int) -> Item:
        stream, states = self.stream(level, index, "text"), walk(puzzle, puzzle["moves"])
        question = stream.choice(QUESTIONS).format(ways=", ".join(puzzle["moves"]))
        steps = []
        for way, state in zip(puzzle["moves"], states[1:], strict=True):
            sentence = stream.choice(ROLLS).format(way=way)
            if stream.unit() >= self.omit_state_p:
                sentence = f"{sentence} {stream.choice(FACE_CLAUSES).format(**state)}"
            steps.append(Step(sentence, self.picture(state, puzzle["pairs"]), state))
        meta = {**puzzle, "n": self.n, "skin": self.skin, "checker": self.name, "answer": str(states[-1]["top"])}
        return self.make_item(
            level,
            index,
            puzzle,
            [self.picture(puzzle["start"], puzzle["pairs"])],
            question,
            steps,
            meta["answer"],
            meta,
        )

    def picture(self, state: dict, pairs: list[list[int]]) -> PILImage.Image:
        return picture(drawing(state, pairs, self.n, self.skin))

    def render_state(self, item: Item, state: dict) -> PILImage.Image:
        return picture(drawing(state, item.meta["pairs"], item.meta["n"], item.meta["skin"]))

    def state_sentence(self, state: dict, stream: Stream) -> str:
        row, column = (v + 1 for v in state["cell"])
        return stream.choice(STATES).format(row=row, column=column, **state)

    def in_words(self, item: Item) -> str:
        pairs = ", ".join(f"{a} and {b}" for a, b in item.meta["pairs"])
        lies = self.state_sentence(item.meta["start"], self.stream(item.level, item.index, "twin"))
        return f"A board of {item.meta['n']} by {item.meta['n']} cells, north is up. {lies} Opposite faces: {pairs}."

    def parse_sketch(self, image: PILImage.Image, meta: dict) -> Parsed:
        n, look = meta["n"], LOOKS[meta["skin"]]
        c, faults = look.cell, []
        canvas = pixels(image, n * c, (n + 3) * c)
        label_map = labels(canvas[:, : n * c], [look["paper"], look["yellow"]])
        cells = [[r, k] for r in range(n) for k in range(n) if majority(label_map, r * c, k * c, c, c)[0] == 1]
        if len(cells) != 1:
            return Parsed(None, 0.0, (f"{len(cells)} dice on the board",))
        read = {place: digit(canvas, y, x, look["ink"]) for place, (y, x) in digit_corners(n, look).items()}
        (row, column), faces = cells[0], {f: read[f][0] for f in FACES}
        pairs = [[read[f"pair{k}"][0], read[f"pair{k + 1}"][0]] for k in (0, 2, 4)]
        if pairs != meta["pairs"]:
            faults.append("other pairs of opposite faces")
        if len({min(p) for p in meta["pairs"] for v in faces.values() if v in p}) < 3:
            faults.append("two faces in sight are opposite or the same")
        if digit(canvas, row * c + c // 2 - 7, column * c + c // 2 - 5, look["ink"])[0] != faces["top"]:
            faults.append("the die on the board shows another top")
        state = {"cell": cells[0], **faces}
        off = np.abs(canvas.astype(np.int16) - drawing(state, pairs, n, meta["skin"])).mean()
        if off > FAR:
            faults.append("not such a picture")
        return Parsed(state, min(confidence for _, confidence in read.values()), tuple(faults))

    def state_said(self, item: Item, said: list[str]) -> dict:
        return walk(item.meta, ways_in(" ".join(said)))[-1]

    def legal(self, item: Item, before: dict | None, said: str, after: dict) -> bool:
        ways = ways_in(said)
        return before is not None and bool(ways) and walk({**item.meta, "start": before}, ways)[-1] == after

    def shown(self, item: Item) -> dict:
        return item.meta["start"]

    def wrong(self, item: Item) -> list[str]:
        return [d for d in "123456" if d != item.answer]

    def check(self, text: str, meta: dict) -> Check:
        return one_of(text, meta, "123456")

    def score(self, text: str, meta: dict) -> dict[str, float]:
        return {"accuracy": self.check(text, meta).partial}
