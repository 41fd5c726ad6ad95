"""``cube_net``: a net of six lettered squares folds to a cube; find the letter opposite a given one.

The given square is the bottom of the cube. A sketch shows the remaining net and a plan of the partial cube: the bottom
in the middle, the four walls around it, and the lid separately above them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import ClassVar

import numpy as np
from PIL import Image as PILImage

from .canvas import LOOKS, blank, frame, picture, pixels, text
from .checkers import Check, one_of
from .drawn import DrawnTask
from .item import TURNS, Item, Parsed, Step
from .stream import Stream, canon

NETS = (
    "X... XXXX X...",
    "X... XXXX .X..",
    "X... XXXX ..X.",
    "X... XXXX ...X",
    ".X.. XXXX .X..",
    ".X.. XXXX ..X.",
    "XX.. .XXX .X..",
    "XX.. .XXX ..X.",
    "XX.. .XXX ...X",
    "XX.. .XX. ..XX",
    "XXX.. ..XXX",
)
HELD = (3, 7, 9)  # nets held out from training
LETTERS = "ABCDEF"
SLOTS = {
    "bottom": (0, 0, -1),
    "north": (0, 1, 0),
    "east": (1, 0, 0),
    "south": (0, -1, 0),
    "west": (-1, 0, 0),
    "lid": (0, 0, 1),
}  # outward normals; the plan shows the slots in this order at ``PLAN``
PLAN = ((3, 6), (2, 6), (3, 7), (4, 6), (3, 5), (0, 6))  # (row, column) in cells of the picture
FILLS = {slot: {"bottom": "green", "lid": "pink"}.get(slot, "cyan") for slot in SLOTS}
ROWS, COLUMNS, WIDE = 5, 4, 8  # rows and columns of the net's area, and columns of the image, in cells
FAR = 40  # largest mean difference (0-255) between a square and its nearest template

QUESTIONS = (
    "Fold the net to a cube. Which letter is opposite {face}?",
    "Which face of the cube lies opposite {face}?",
    "The net makes a cube. What is opposite {face}?",
    "Once folded, which letter faces away from {face}?",
    "If {face} is the bottom of the folded cube, which letter is the lid?",
    "Find the letter opposite {face} on the folded cube.",
)
FOLDS = (
    "Fold {face}.",
    "Fold up {face}.",
    "Next fold {face}.",
    "Now {face} folds.",
    "Then fold {face}.",
    "We fold {face}.",
)
CLAUSES = (
    "{face} is the {slot}.",
    "It makes {face} the {slot}.",
    "So {face} forms the {slot}.",
    "That is the {slot}: {face}.",
    "{face} becomes the {slot}.",
)
STATES = ("Cube so far: {all}.", "Folded: {all}.", "The cube has {all}.", "In place: {all}.", "By now: {all}.")
PLACE = {s: s if s in ("bottom", "lid") else f"{s} wall" for s in SLOTS}


@cache
def cells(net: int) -> tuple[tuple[int, int], ...]:
    """The (row, column) of a net's squares."""
    return tuple((r, c) for r, row in enumerate(NETS[net].split()) for c, x in enumerate(row) if x == "X")


def apply_symmetry(squares: Sequence[tuple[int, int]], way: int) -> list[tuple[int, int]]:
    """Apply one of the eight symmetries and move the squares to the top left corner, in unchanged order."""
    for _ in range(way % 4):
        squares = [(c, -r) for r, c in squares]
    if way >= 4:
        squares = [(r, -c) for r, c in squares]
    top, left = (min(v) for v in zip(*squares, strict=True))
    return [(r - top, c - left) for r, c in squares]


@cache
def canonical_symmetries(squares: tuple[tuple[int, int], ...]) -> list[int]:
    """The symmetries that map a piece to its smallest form: one, or several if the piece is symmetric."""
    forms = [sorted(apply_symmetry(list(squares), way)) for way in range(8)]
    return [way for way in range(8) if forms[way] == min(forms)]


def assign_slots(net: dict[str, list[int]], face: str) -> dict[str, str]:
    """The slot of each letter, in folding order (nearest to the bottom first), with ``face`` as the bottom."""

    def minus(v):
        return tuple(-x for x in v)

    letter_at = {tuple(cell): letter for letter, cell in net.items()}
    name, slot_of = {normal: slot for slot, normal in SLOTS.items()}, {face: "bottom"}
    queue = [(tuple(net[face]), SLOTS["bottom"], SLOTS["east"], SLOTS["south"])]
    for (r, c), out, east, south in queue:  # outward normal, and the directions of the net's east and south
        for cell, turn in (
            ((r - 1, c), (minus(south), east, out)),
            ((r, c + 1), (east, minus(out), south)),
            ((r + 1, c), (south, east, minus(out))),
            ((r, c - 1), (minus(east), out, south)),
        ):
            if cell in letter_at and letter_at[cell] not in slot_of:
                slot_of[letter_at[cell]] = name[turn[0]]
                queue.append((cell, *turn))
    return slot_of


def folds(puzzle: dict) -> list[tuple[str, str]]:
    """(letter, slot) of the folds up to the lid."""
    order = [pair for pair in assign_slots(puzzle["net"], puzzle["face"]).items() if pair[1] != "bottom"]
    return order[: [slot for _, slot in order].index("lid") + 1]


@cache
def placements(net: int, count: int) -> list[tuple[list[tuple[int, int]], list[int]]]:
    """The symmetries of a net that fit into its area, each with the squares for which the lid needs ``count`` folds."""
    fits = []
    for squares in (apply_symmetry(list(cells(net)), way) for way in range(8)):
        at = {letter: list(cell) for letter, cell in zip(LETTERS, squares, strict=True)}
        faces = [k for k, letter in enumerate(LETTERS) if len(folds({"net": at, "face": letter})) == count]
        if faces and max(r for r, _ in squares) < ROWS and max(c for _, c in squares) < COLUMNS:
            fits.append((squares, faces))
    return fits


def state_of(puzzle: dict, letters: str) -> dict:
    """The cube with the bottom and ``letters`` in place: a letter or a dot for each slot."""
    slots = {slot: letter for letter, slot in assign_slots(puzzle["net"], puzzle["face"]).items()}
    return {"slots": "".join(slots[s] if slots[s] in letters or s == "bottom" else "." for s in SLOTS)}


def letters_in(words: str) -> str:
    return "".join(dict.fromkeys(re.findall(r"\b[A-F]\b", words.split("\\boxed")[0])))


# -- images ------------------------------------------------------------------------------------------------------------
@cache
def square(fill: str, letter: str, skin: str) -> np.ndarray:
    """Rendering of a framed square with a letter (a dot: no letter). Fill ``none``: a cell without a square."""
    look = LOOKS[skin]
    c = look.cell
    if fill == "none":
        return blank(c, c, look["paper"])
    canvas = blank(c, c, look[fill])
    frame(canvas, 0, 0, c, c, look.line // 2, look["ink"])
    text(canvas, c // 2 - 7, c // 2 - 5, letter.replace(".", " "), look["ink"], 2)
    return canvas


@cache
def paper(skin: str) -> np.ndarray:
    return blank(ROWS * LOOKS[skin].cell, WIDE * LOOKS[skin].cell, LOOKS[skin]["paper"])


def drawing(slots: str, net: dict[str, list[int]], skin: str) -> np.ndarray:
    """Render the net without the squares in ``slots``, and the plan of the cube."""
    canvas, c = paper(skin).copy(), LOOKS[skin].cell
    squares: list[tuple[Sequence[int], str, str]] = [
        (cell, "grey", ".") if letter in slots else (cell, "yellow", letter) for letter, cell in net.items()
    ]
    squares += [
        (cell, "paper" if letter == "." else FILLS[slot], letter)
        for cell, letter, slot in zip(PLAN, slots, SLOTS, strict=True)
    ]
    for (r, k), fill, letter in squares:
        canvas[r * c : (r + 1) * c, k * c : (k + 1) * c] = square(fill, letter, skin)
    return canvas


def read_square(
    canvas: np.ndarray, cell: tuple[int, int], options: tuple[tuple[str, str], ...], skin: str
) -> tuple[str, float]:
    """(letter of the nearest (fill, letter) option, ``?`` if none is near; confidence from 0 to 1)."""
    c = LOOKS[skin].cell
    (r, k), known = cell, np.array([square(*option, skin) for option in options]).astype(np.int16)
    off = np.abs(known - canvas[r * c : (r + 1) * c, k * c : (k + 1) * c]).mean((1, 2, 3))
    best, second = np.sort(off)[:2]
    return options[int(off.argmin())][1] if best < FAR else "?", float(1 - best / max(second, 1e-6))


class CubeNet(DrawnTask):
    """Name the letter opposite a given one. Level = folds until the lid is in place, 2 to 5, nearest squares first.

    ``nets``: ``trained`` (the eight nets of training) or ``held`` (the three held-out nets).
    """

    name = "cube_net"
    version = 1
    trained = (2, 3, 4, 5)
    ood: ClassVar = {"skin": {"skin": "other"}, "composition": {"nets": "held", "level": (3, 4, 5)}}
    swaps = (tuple(LETTERS), ("north", "east", "south", "west"))
    invariant_to: ClassVar = tuple(TURNS)

    def __init__(self, *, nets: str = "trained", **options):
        super().__init__(**options)
        if nets not in ("trained", "held"):
            raise ValueError(f"unknown nets {nets!r}. Use trained or held.")
        if not set(self.levels) <= {2, 3, 4, 5}:
            raise ValueError(f"The lid is in place after 2 to 5 folds; got level {self.levels}.")
        self.nets = [n for n in range(len(NETS)) if (n in HELD) == (nets == "held")]

    def targets(self, level: int, stream: Stream) -> int:
        return level

    def draw(self, level: int, targets: int, stream: Stream) -> dict:
        squares, faces = stream.choice([fit for n in self.nets for fit in placements(n, targets)])
        high, wide = (max(v) + 1 for v in zip(*squares, strict=True))
        top, left = stream.between(0, ROWS - high), stream.between(0, COLUMNS - wide)
        letters = stream.shuffle(LETTERS)
        net = {letter: [r + top, c + left] for letter, (r, c) in zip(letters, squares, strict=True)}
        return {"net": dict(sorted(net.items())), "face": letters[stream.choice(faces)]}

    def canon(self, puzzle: dict) -> str:
        """Rotated, flipped and shifted nets are the same puzzle."""
        letters, squares = zip(*puzzle["net"].items(), strict=True)
        places = min(apply_symmetry(squares, way) for way in canonical_symmetries(tuple(sorted(map(tuple, squares)))))
        return canon("cube_net/1", {"face": puzzle["face"], "letters": "".join(letters), "squares": places})

    def verify(self, puzzle: dict, targets: int) -> None:
        """Nothing to test: ``draw`` samples only valid puzzles."""

    def build(self, puzzle: dict, level: int, index: int) -> Item:
        stream, steps, done = self.stream(level, index, "text"), [], ""
        question = stream.choice(QUESTIONS).format(face=puzzle["face"])
        for letter, slot in folds(puzzle):
            sentence, done = stream.choice(FOLDS).format(face=letter), done + letter
            if stream.unit() >= self.omit_state_p:
                sentence = f"{sentence} {stream.choice(CLAUSES).format(face=letter, slot=PLACE[slot])}"
            state = state_of(puzzle, done)
            steps.append(Step(sentence, picture(drawing(state["slots"], puzzle["net"], self.skin)), state))
        meta = {**puzzle, "skin": self.skin, "checker": self.name, "answer": done[-1]}
        return self.make_item(
            level, index, puzzle, [picture(drawing("." * 6, puzzle["net"], self.skin))], question, steps, done[-1], meta
        )

    def render_state(self, item: Item, state: dict) -> PILImage.Image:
        return picture(drawing(state["slots"], item.meta["net"], item.meta["skin"]))

    def kind(self, item: Item) -> str:
        """The letter in the question: the answer is one of the other five."""
        return item.meta["face"]

    def state_sentence(self, state: dict, stream: Stream) -> str:
        parts = [f"{PLACE[slot]} {letter}" for slot, letter in zip(SLOTS, state["slots"], strict=True) if letter != "."]
        return stream.choice(STATES).format(all=", ".join(parts) or "nothing")

    def in_words(self, item: Item) -> str:
        at = {tuple(cell): letter for letter, cell in item.meta["net"].items()}
        rows = [" ".join(at.get((r, c), "-") for c in range(COLUMNS)) for r in range(ROWS)]
        return "The net, row by row, a dash where no square is:\n" + "\n".join(rows)

    def parse_sketch(self, image: PILImage.Image, meta: dict) -> Parsed:
        skin, net, faults = meta["skin"], meta["net"], []
        c = LOOKS[skin].cell
        canvas = pixels(image, ROWS * c, WIDE * c).astype(np.int16)
        read = [
            read_square(canvas, cell, (("paper", "."), *((FILLS[slot], letter) for letter in LETTERS)), skin)
            for cell, slot in zip(PLAN, SLOTS, strict=True)
        ]
        slots = "".join(letter for letter, _ in read)
        if "?" in slots:
            return Parsed(None, 0.0, ("a square of the cube is unreadable",))
        placed = slots.replace(".", "")
        if len(set(placed)) < len(placed):
            faults.append("a letter lies twice on the cube")
        owners = {tuple(cell): letter for letter, cell in net.items()}
        options = (("none", " "), ("grey", "."), *(("yellow", letter) for letter in LETTERS))
        for cell in ((r, k) for r in range(ROWS) for k in range(COLUMNS)):
            owner = owners.get(cell, " ")
            if read_square(canvas, cell, options, skin)[0] != ("." if owner in placed else owner):
                faults.append("the net does not hold what the cube lacks")
                break
        return Parsed({"slots": slots}, min(confidence for _, confidence in read), tuple(faults))

    def state_said(self, item: Item, said: list[str]) -> dict:
        return state_of(item.meta, letters_in(" ".join(said)))

    def legal(self, item: Item, before: dict | None, said: str, after: dict) -> bool:
        added = letters_in(said)
        return before is not None and bool(added) and after == state_of(item.meta, before["slots"] + added)

    def shown(self, item: Item) -> dict:
        return {"slots": "." * 6}

    def wrong(self, item: Item) -> list[str]:
        return [letter for letter in LETTERS if letter != item.answer]

    def check(self, text: str, meta: dict) -> Check:
        return one_of(text, meta, LETTERS)

    def score(self, text: str, meta: dict) -> dict[str, float]:
        return {"accuracy": self.check(text, meta).partial}
