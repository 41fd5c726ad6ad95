"""``transform``: a polyomino is rotated and flipped step by step; find its final shape.

A shape is its rows from the top, cropped, ``1`` filled and ``0`` empty: ["011", "110"]. A step is "90", "180" or "270"
(degrees clockwise), "vertical" (flipped over the vertical axis: left and right swapped) or "horizontal". No shape
equals one of its rotations or reflections. A sketch shows the shape after a step. A state is {"rows": [...]}.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import ClassVar

import numpy as np
from PIL import Image as PILImage

from . import canvas
from .canvas import LOOKS
from .checkers import Check, boxed
from .drawn import DrawnTask
from .item import Item, Parsed, Rejected, Step
from .stream import Stream
from .stream import canon as name_of

TURNS, FLIPS = ("90", "180", "270"), ("vertical", "horizontal")
GRID, WIDEST = 8, 6  # cells per side of the image and of the largest shape
MOST = 16  # cells per side of the largest answer that is compared cell by cell
TRIES = 100
VARIANTS = ("free", "pick", "mirror")

QUESTIONS = {
    "free": (
        "The shape is changed like this: {steps}. Give the rows of the result, 1 filled and 0 empty, as 011/110.",
        "Apply to the shape: {steps}. Write the result row by row with 1 and 0, as 011/110.",
        "What becomes of the shape after these steps: {steps}? Answer with rows of 1 and 0 such as 011/110.",
        "Take the shape and do this: {steps}. Its final rows, 1 filled and 0 empty, as 011/110?",
        "Do the following with the shape: {steps}. Write the rows you get, as 011/110 with 1 for filled.",
    ),
    "pick": (
        "The first shape is changed like this: {steps}. Which of A, B, C and D is the result?",
        "Apply to the first shape: {steps}. Which option shows the result?",
        "What becomes of the first shape after these steps: {steps}? Name the option.",
        "Take the first shape and do this: {steps}. Is the result A, B, C or D?",
        "Do the following with the first shape: {steps}. Which letter is the result?",
    ),
    "mirror": (
        "Is shape 2 shape 1 turned (same), or its mirror image turned (mirror)?",
        "Can shape 2 be turned into shape 1 (same) or only into its mirror image (mirror)?",
        "Compare the two shapes: same up to turning, or mirror?",
        "Does turning alone lead from shape 2 to shape 1? Answer same or mirror.",
        "Are these the same shape turned, or mirror images? Answer same or mirror.",
    ),
}
SAID = {
    "turn": (
        "Turn it {degrees} degrees clockwise.",
        "Rotate the shape {degrees} degrees clockwise.",
        "A turn of {degrees} degrees clockwise.",
        "It goes clockwise by {degrees} degrees.",
        "Now it turns clockwise, {degrees} degrees.",
    ),
    "flip": (
        "Flip it over the {axis} axis.",
        "Mirror the shape over the {axis} axis.",
        "A flip over the {axis} axis.",
        "It is mirrored over the {axis} axis.",
        "Reflect it, axis {axis}.",
    ),
}
PLACES = ("Now it is {rows}.", "That gives {rows}.", "It becomes {rows}.", "The result is {rows}.", "So {rows}.")
SHAPES = (
    "Shape: {rows}.",
    "The shape: {rows}.",
    "The shape is {rows}.",
    "Rows of the shape: {rows}.",
    "Now the shape is {rows}.",
    "Row by row: {rows}.",
)

_STEP = re.compile(r"\b(90|180|270) degrees|\b(vertical|horizontal)\b")
Rows = list[str]


# -- shapes ------------------------------------------------------------------------------------------------------------
def apply_step(rows: Rows, step: str) -> Rows:
    if step in FLIPS:
        return [row[::-1] for row in rows] if step == "vertical" else rows[::-1]
    for _ in range(int(step) // 90):
        rows = ["".join(column) for column in zip(*rows[::-1], strict=True)]
    return rows


def solve(rows: Rows, steps: list[str]) -> list[Rows]:
    """The shape after 0, 1, ... steps."""
    shapes = [rows]
    for step in steps:
        shapes.append(apply_step(shapes[-1], step))
    return shapes


def orbit(rows: Rows) -> list[Rows]:
    """The shape rotated by 0, 90, 180 and 270 degrees, then its mirror image with the same rotations."""
    return [shape for start in (rows, apply_step(rows, "vertical")) for shape in solve(start, ["90"] * 3)]


def cropped(cells: set[tuple[int, int]]) -> Rows:
    top, left, bottom, right = (f(v) for f in (min, max) for v in zip(*cells, strict=True))
    return ["".join("01"[(y, x) in cells] for x in range(left, right + 1)) for y in range(top, bottom + 1)]


def filled(rows: Rows) -> set[tuple[int, int]]:
    return {(y, x) for y, row in enumerate(rows) for x, cell in enumerate(row) if cell == "1"}


def polyomino(count: int, stream: Stream) -> Rows:
    """A shape of ``count`` cells that grows by one random neighboring cell at a time."""
    cells = {(0, 0)}
    while len(cells) < count:
        y, x = stream.choice(sorted(cells))
        dy, dx = stream.choice(((0, 1), (1, 0), (0, -1), (-1, 0)))
        cells.add((y + dy, x + dx))
    return cropped(cells)


def overlap(one: Rows, other: Rows) -> float:
    """The largest intersection over union over all shifts of the shapes. It is 1 only for equal shapes."""
    a, b = filled(one), filled(other)
    shared = max(Counter((y - v, x - u) for y, x in a for v, u in b).values())
    return shared / (len(a) + len(b) - shared)


def draw_shape(skin: str, rows: Rows, label: str = "") -> PILImage.Image:
    """Render the shape in the center of a grid, with a label in the upper left corner."""
    look = LOOKS[skin]
    s, thick = look.cell // 2, look.line // 4 or 1
    picture = canvas.blank(GRID * s, GRID * s, look["paper"])
    top, left = (GRID - len(rows)) // 2, (GRID - len(rows[0])) // 2
    for y, x in filled(rows):
        canvas.rectangle(picture, (top + y) * s, (left + x) * s, s, s, look["orange"])
    picture[::s] = picture[:, ::s] = look["grey"]
    for y, x in filled(rows):
        canvas.frame(picture, (top + y) * s, (left + x) * s, s + 1, s + 1, thick, look["ink"])
    canvas.text(picture, (s - 7) // 2 + 1, (s - 5) // 2 + 1, label, look["ink"])
    return canvas.picture(picture)


class Transform(DrawnTask):
    """Track a shape through rotations and flips. Level = number of steps, ``cells`` = minimum and maximum number of
    cells of a shape.

    ``variant``: "free" asks for the rows of the result, "pick" for one of four images. "mirror" asks whether two shapes
    are the same or mirror images; its level is the number of quarter turns between them (1 to 3). If the input shows
    the result (pick, mirror), the trace has no sketch of it.
    """

    name = "transform"
    redraws = True
    trained = (1, 2, 3, 4)
    ood: ClassVar = {"size": {"cells": (10, 12)}, "skin": {"skin": "other"}, "composition": {"level": (5, 6)}}
    swaps = (TURNS, FLIPS)

    def __init__(self, *, variant: str = "free", cells: tuple[int, int] = (4, 9), **options):
        if variant == "mirror" and options.get("level") is None:
            options["level"] = (1, 2, 3)
        super().__init__(**options)
        if variant not in VARIANTS:
            raise ValueError(f"unknown variant {variant!r}. Use one of {', '.join(VARIANTS)}.")
        if not 4 <= cells[0] <= cells[1] <= 12:
            raise ValueError(f"cells is the minimum and maximum number of cells of a shape, 4 to 12; got {cells}.")
        most = 3 if variant == "mirror" else 6
        if not set(self.levels) <= set(range(1, most + 1)):
            raise ValueError(
                f"the level is the number of steps, 1 to {most} for variant {variant!r}; got {self.levels}"
            )
        self.variant, self.cells = variant, cells

    def targets(self, level: int, stream: Stream) -> dict:
        """For "mirror", the class. Otherwise steps that do not return to the start, do not undo the previous step, and
        reach the result only once."""
        if self.variant == "mirror":
            return {"steps": ["90"] * level, "answer": stream.choice(("same", "mirror"))}
        while True:
            steps = [stream.choice(TURNS + FLIPS) for _ in range(level)]
            shapes = solve(["10", "10", "11"], steps)
            seen = {tuple(shape) for shape in shapes[1:]}
            if self.variant == "pick" and len(seen) > 5:  # three options without a sketch must remain
                continue
            if (
                shapes[0] not in shapes[1:]
                and shapes[-1] not in shapes[:-1]
                and all(one != other for one, other in zip(shapes, shapes[2:], strict=False))
            ):
                return {"steps": steps, "place": stream.below(4)}

    def draw(self, level: int, targets: dict, stream: Stream) -> dict:
        count = stream.between(*self.cells)
        for _ in range(TRIES):
            rows = polyomino(count, stream)
            if max(len(rows), len(rows[0])) <= WIDEST and len(set(map(tuple, orbit(rows)))) == 8:
                break
        else:
            raise Rejected("symmetric or too wide")
        puzzle = {"rows": rows, "steps": targets["steps"]}
        if self.variant == "mirror":
            end = rows if targets["answer"] == "same" else apply_step(rows, "vertical")
            return {**puzzle, "second": solve(end, ["90"] * (4 - level))[-1]}
        if self.variant == "pick":
            shapes = solve(rows, targets["steps"])
            options = [shape for shape in stream.shuffle(orbit(rows)) if shape not in shapes[1:]][:3]
            options.insert(targets["place"], shapes[-1])
            return {**puzzle, "options": options}
        return puzzle

    def canon(self, puzzle: dict) -> str:
        if "second" in puzzle:
            return name_of("transform_pair/1", [puzzle["rows"], puzzle["second"]])
        return name_of("transform/1", [puzzle["rows"], puzzle["steps"]])

    def verify(self, puzzle: dict, targets: dict) -> None:
        """Nothing to test: ``draw`` samples only valid puzzles."""

    def build(self, puzzle: dict, level: int, index: int) -> Item:
        stream = self.stream(level, index, "text")
        start = puzzle.get("second", puzzle["rows"])
        shapes = solve(start, puzzle["steps"])
        if self.variant == "mirror":
            images = [draw_shape(self.skin, puzzle["rows"], "1"), draw_shape(self.skin, start, "2")]
            answer = "same" if shapes[-1] == puzzle["rows"] else "mirror"
        else:
            images = [draw_shape(self.skin, start)]
            images += [draw_shape(self.skin, *shown) for shown in zip(puzzle.get("options", ()), "ABCD", strict=False)]
            answer = "ABCD"[puzzle["options"].index(shapes[-1])] if "options" in puzzle else "/".join(shapes[-1])
        steps = []
        for k, (name, rows) in enumerate(zip(puzzle["steps"], shapes[1:], strict=True), 1):
            said, drawn = step_words(name, stream), self.variant == "free" or k < level
            if stream.unit() >= self.omit_state_p and drawn:
                said = f"{said} {stream.choice(PLACES).format(rows='/'.join(rows))}"
            steps.append(Step(said, draw_shape(self.skin, rows) if drawn else None, {"rows": rows}))
        told = ", then ".join(
            f"turn {s} degrees clockwise" if s in TURNS else f"flip over the {s} axis" for s in puzzle["steps"]
        )
        question = stream.choice(QUESTIONS[self.variant]).format(steps=told)
        meta = {
            **puzzle,
            "variant": self.variant,
            "mcq": self.variant != "free",
            "answer": answer,
            "skin": self.skin,
            "checker": self.name,
        }
        return self.make_item(level, index, puzzle, images, question, steps, answer, meta)

    def state_sentence(self, state: dict, stream: Stream) -> str:
        return stream.choice(SHAPES).format(rows=" / ".join(" ".join(row) for row in state["rows"]))

    def in_words(self, item: Item) -> str:
        shown = {"The shape": item.meta["rows"]}
        if "options" in item.meta:
            shown |= {f"Option {k}": rows for k, rows in zip("ABCD", item.meta["options"], strict=True)}
        if "second" in item.meta:
            shown = {"Shape 1": item.meta["rows"], "Shape 2": item.meta["second"]}
        said = (f"{name}: {' / '.join(' '.join(row) for row in rows)}." for name, rows in shown.items())
        return " ".join(["Rows from the top, 1 filled and 0 empty.", *said])

    def render_state(self, item: Item, state: dict) -> PILImage.Image:
        return draw_shape(item.meta["skin"], state["rows"])

    def parse_sketch(self, image: PILImage.Image, meta: dict) -> Parsed:
        look = LOOKS[meta["skin"]]
        s = look.cell // 2
        found = canvas.labels(canvas.pixels(image, GRID * s, GRID * s), [look["paper"], look["orange"]])
        read = [[canvas.majority(found, y * s, x * s, s, s) for x in range(GRID)] for y in range(GRID)]
        confidence = float(np.mean([share for row in read for _, share in row]))
        if any(label < 0 for row in read for label, _ in row):
            return Parsed(None, confidence, ("cells that cannot be read",))
        cells = {(y, x) for y, row in enumerate(read) for x, (label, _) in enumerate(row) if label}
        if not cells:
            return Parsed(None, confidence, ("no shape",))
        rows = cropped(cells)
        faults = () if rows in orbit(meta["rows"]) else ("another shape",)
        return Parsed({"rows": rows}, confidence, faults)

    def shown(self, item: Item) -> dict:
        return {"rows": item.meta.get("second", item.meta["rows"])}

    def state_said(self, item: Item, said: list[str]) -> dict:
        return {"rows": solve(self.shown(item)["rows"], steps_in(" ".join(said)))[-1]}

    def legal(self, item: Item, before: dict | None, said: str, after: dict) -> bool:
        steps = steps_in(said)
        return before is not None and bool(steps) and solve(before["rows"], steps)[-1] == after["rows"]

    def check(self, text: str, meta: dict) -> Check:
        """The answer is the rows, up to empty ones around the shape (``partial``: intersection over union), a letter,
        or same or mirror."""
        content = (boxed(text) or "").strip()
        if meta["mcq"]:
            kinds = ("A", "B", "C", "D") if meta["variant"] == "pick" else ("same", "mirror")
            said = [k for k in kinds if re.fullmatch(rf"\W*{k}\W*", content[:40], re.IGNORECASE)]
            if not said:
                return Check(False, 0.0, "no_answer")
            ok = said[0] == meta["answer"]
            return Check(ok, float(ok), "right" if ok else "wrong", said[0])
        pieces = re.split(r"[/,;\s]+", content)
        if not all(re.fullmatch("[01]+", piece) for piece in pieces) or "1" not in content:
            return Check(False, 0.0, "no_answer")
        if len(pieces) > MOST or max(map(len, pieces)) > MOST:
            return Check(False, 0.0, "too large")
        rows = cropped(filled(pieces))
        partial = overlap(rows, meta["answer"].split("/"))
        return Check(partial == 1, partial, "right" if partial == 1 else "another shape", rows)

    def score(self, text: str, meta: dict) -> dict[str, float]:
        found = self.check(text, meta)
        success = {"success": float(found.ok)}
        if meta["mcq"]:
            return success
        turned = found.parsed is not None and found.parsed in orbit(meta["rows"])
        return {**success, "iou": found.partial, "shape": float(turned)}

    def wrong(self, item: Item) -> list[str]:
        meta = item.meta
        if meta["mcq"]:
            kinds = "ABCDE" if meta["variant"] == "pick" else ("same", "mirror", "same mirror", "neither")
            return [k for k in kinds if k != item.answer]
        last = item.answer.rindex("1")
        return ["/".join(rows) for rows in orbit(meta["rows"]) if "/".join(rows) != item.answer] + [
            f"{item.answer[:last]}0{item.answer[last + 1 :]}"
        ]


def step_words(step: str, stream: Stream) -> str:
    return stream.choice(SAID["flip" if step in FLIPS else "turn"]).format(degrees=step, axis=step)


def steps_in(text: str) -> list[str]:
    """The steps that a text states, in order."""
    return [turn or flip for turn, flip in _STEP.findall(text)]
