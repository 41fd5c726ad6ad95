"""``scene_edit``: answer a question about a scene of colored shapes after a list of edits.

A scene is a list of 36 codes, row by row: 0 for an empty cell, else the number in ``NAMES`` ("small red circle"). A
state is the list of its objects, ``[row, column, name]`` with rows and columns from 1. The edits and the query are
sampled first, then one of the answers they allow, then a scene with this answer, so the text does not reveal it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any, ClassVar

import numpy as np
from PIL import Image as PILImage

from . import canvas
from .base import Item, Parsed, Rejected, Step
from .checkers import Check, boxed
from .drawn import DrawnTask
from .stream import Stream, canon

SIDE = 6
SIZES = ("small", "large")
HUES = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "pink")
SHAPES = {"circle": "circles", "square": "squares", "triangle": "triangles", "cross": "crosses"}
NAMES = ["", *map(" ".join, product(SIZES, HUES, SHAPES))]
CODES = {name: code for code, name in enumerate(NAMES) if code}
MANY = {f"{' '.join(name.split()[:2])} {SHAPES[name.split()[2]]}": code for name, code in CODES.items()}
HELD_OUT = {c for i, hue in enumerate(HUES) for c, n in enumerate(NAMES) if f" {hue} {list(SHAPES)[i % 4]}" in n}
WHAT = {
    f"{size}{hue}{shape}".strip(): frozenset(
        c for n, c in CODES.items() if {size, hue, one} - {""} <= {*(f"{w} " for w in n.split()[:2]), n.split()[2]}
    )
    for size, hue, (one, shape) in product(
        ("", "small ", "large "), ("", *(f"{h} " for h in HUES)), (("", "objects"), *SHAPES.items())
    )
}
RADII = {"plain": (7, 12), "other": (5, 9)}  # radii of small and large objects in pixels
LIKE = 0.82  # smallest fraction of a cell's pixels that match its template
FRAME = 30  # largest mean difference from the empty grid's lines and numbers

QUESTIONS = (
    "{edits} {query}",
    "Edit the scene: {edits} {query}",
    "Do this in order: {edits} Then answer: {query}",
    "{edits} After that: {query}",
    "Carry out these edits: {edits} {query}",
)
EDITS = {
    "remove": (
        "Remove all {what}.",
        "Take away all {what}.",
        "Delete all {what}.",
        "Erase all {what}.",
        "Clear away all {what}.",
    ),
    "recolour": (
        "Make all {what} {to}.",
        "Paint all {what} {to}.",
        "Turn all {what} {to}.",
        "Colour all {what} {to}.",
        "Recolour all {what} to {to}.",
    ),
    "add": (
        "Add {k} {many} in the leftmost free cells of row {row}.",
        "Put {k} {many} in the leftmost free cells of row {row}.",
        "Place {k} {many} in row {row}, in its leftmost free cells.",
        "Fill the {k} leftmost free cells of row {row} with {many}.",
        "Row {row} gets {k} {many} in its leftmost free cells.",
    ),
    "move": (
        "Move {line} {at} by {k} to the {way}, round the edge.",
        "Rotate {line} {at} by {k} to the {way}.",
        "Shift {line} {at} by {k} to the {way}; what leaves comes in again on the other side.",
        "Push {line} {at} by {k} to the {way} and let what falls off come in on the other side.",
        "Let {line} {at} go round by {k} to the {way}.",
    ),
}
QUERIES = {
    "count": (
        "How many {what} are there?",
        "Count the {what}.",
        "What is the number of {what}?",
        "How many {what} do you see?",
        "How many {what} does the scene hold?",
    ),
    "exists": (
        "Are there any {what}? Yes or No.",
        "Does the scene hold {what}? Yes or No.",
        "Do you see any {what}? Yes or No.",
        "Are any {what} left? Yes or No.",
        "Any {what}? Yes or No.",
    ),
    "compare": (
        "Are there more {what} than {other}? Yes or No.",
        "More {what} than {other}? Yes or No.",
        "Is the number of {what} above that of {other}? Yes or No.",
        "Do the {what} outnumber the {other}? Yes or No.",
        "Do you see more {what} than {other}? Yes or No.",
    ),
    "colour": (
        "What colour has the leftmost object of row {row}?",
        "Which colour is leftmost in row {row}?",
        "Name the colour of the leftmost object in row {row}.",
        "Row {row}, leftmost object: which colour?",
        "What is the colour of the leftmost object in row {row}?",
    ),
    "shape": (
        "What shape has the leftmost object of row {row}?",
        "Which shape is leftmost in row {row}?",
        "Name the shape of the leftmost object in row {row}.",
        "Row {row}, leftmost object: which shape?",
        "What is the shape of the leftmost object in row {row}?",
    ),
}
DISTINCT = {
    "count": 4,
    "exists": 2,
    "compare": 2,
    "colour": 4,
    "shape": 4,
}  # smallest number of answers that a text must allow
SCENES = (
    "Now: {scene}.",
    "The scene: {scene}.",
    "The scene holds {scene}.",
    "What stands there: {scene}.",
    "In the grid: {scene}.",
    "One sees {scene}.",
)
CHANGES = ("Changed: {cells}.", "Now {cells}.", "So {cells}.", "This gives {cells}.", "The new cells: {cells}.")
FIELD = {
    "what": r"[a-z ]+?",
    "to": "|".join(HUES),
    "many": r"[a-z ]+?",
    "k": r"\d",
    "row": r"\d",
    "at": r"\d",
    "line": "row|column",
    "way": "left|right|top|bottom",
}
PATTERNS = [
    (kind, re.compile(re.sub(r"\\{(\w+)\\}", lambda m: f"(?P<{m[1]}>{FIELD[m[1]]})", re.escape(phrase)), re.A))
    for kind, wordings in EDITS.items()
    for phrase in wordings
]


def apply_edit(scene: list[int], edit: dict) -> list[int] | None:
    """The scene after an edit. None if the edit changes nothing, has no free cell or removes all objects."""
    after = list(scene)
    if edit["kind"] in ("remove", "recolour"):
        which, to = WHAT[edit["what"]], HUES.index(edit["to"]) if edit["kind"] == "recolour" else None
        after = [code if code not in which else 0 if to is None else recoloured(code, to) for code in scene]
    elif edit["kind"] == "add":
        first = SIDE * (edit["row"] - 1)
        free = [i for i in range(first, first + SIDE) if not scene[i]][: edit["k"]]
        if len(free) < edit["k"]:
            return None
        for i in free:
            after[i] = MANY[edit["many"]]
    else:
        at, k = edit["at"] - 1, edit["k"] if edit["way"] in ("right", "bottom") else -edit["k"]
        cells = slice(SIDE * at, SIDE * at + SIDE) if edit["line"] == "row" else slice(at, None, SIDE)
        after[cells] = [scene[cells][(i - k) % SIDE] for i in range(SIDE)]
    return after if after != scene and any(after) else None


def recoloured(code: int, hue: int) -> int:
    size, rest = divmod(code - 1, len(HUES) * len(SHAPES))
    return 1 + (size * len(HUES) + hue) * len(SHAPES) + rest % len(SHAPES)


def apply_edits(scene: list[int], edits: list[dict]) -> list[list[int]] | None:
    """The scene and its states after each edit. None if an edit fails or a scene repeats."""
    scenes = [scene]
    for edit in edits:
        after = apply_edit(scenes[-1], edit)
        if after is None or after in scenes:
            return None
        scenes.append(after)
    return scenes


def answer(scene: list[int], query: dict) -> str | None:
    """The answer to a query as text. None if the object of the query does not exist."""
    if query["kind"] in ("colour", "shape"):
        row = [code for code in scene[SIDE * (query["row"] - 1) : SIDE * query["row"]] if code]
        return NAMES[row[0]].split()[1 if query["kind"] == "colour" else 2] if row else None
    found, other = (sum(code in WHAT[query.get(key, "objects")] for code in scene) for key in ("what", "other"))
    if query["kind"] == "count":
        return str(found)
    return "Yes" if found > (other if query["kind"] == "compare" else 0) else "No"


def state_of(scene: list[int]) -> list[list]:
    return [[i // SIDE + 1, i % SIDE + 1, NAMES[code]] for i, code in enumerate(scene) if code]


def scene_of(state: list[list]) -> list[int]:
    scene = [0] * SIDE * SIDE
    for row, column, name in state:
        scene[SIDE * (row - 1) + column - 1] = CODES[name]
    return scene


def edits_in(text: str) -> list[dict]:
    """The edits that a text states, in order."""
    found = {}
    for kind, pattern in PATTERNS:
        for match in pattern.finditer(text):
            edit = {"kind": kind, **{k: int(v) if v.isdigit() else v for k, v in match.groupdict().items()}}
            if (
                edit.get("what", "objects") in WHAT
                and edit.get("many", "small red circles") in MANY
                and all(1 <= edit.get(key, 1) <= SIDE for key in ("row", "at", "k"))
            ):
                found[match.start()] = edit
    return [found[start] for start in sorted(found)]


# -- images ------------------------------------------------------------------------------------------------------------
@cache
def sprites(skin: str) -> np.ndarray:
    """(65, cell, cell, 3) rendering of a cell for each code."""
    look = canvas.LOOKS[skin]
    cell, middle, made = look.cell, look.cell // 2, []
    for name in NAMES:
        grid = canvas.blank(cell, cell, look["paper"])
        canvas.frame(grid, 0, 0, cell, cell, look.line // 2, look["grey"])
        if name:
            size, hue, shape = name.split()
            r = RADII[skin][SIZES.index(size)]
            draw_shape(grid, shape, middle, r, max(2, r // 3), look["ink"])
            draw_shape(grid, shape, middle, r - 1, max(2, r // 3) - 1, look[hue])
        made.append(grid)
    return np.stack(made)


def draw_shape(grid: np.ndarray, shape: str, at: int, r: int, arm: int, colour: canvas.Colour) -> None:
    """Draw a shape that extends ``r`` pixels from (at, at) to each side. The arms of a cross are ``arm`` wide to each
    side."""
    if shape == "circle":
        canvas.disc(grid, at, at, r, colour)
    elif shape == "triangle":
        canvas.triangle(grid, at, at, r, "U", colour)
    else:
        for h, w in ((r - 1, r - 1),) if shape == "square" else ((r, arm), (arm, r)):
            canvas.rectangle(grid, at - h, at - w, 2 * h + 1, 2 * w + 1, colour)


@cache
def margins(skin: str) -> np.ndarray:
    """Rendering of the empty grid, with column numbers above and row numbers on the left."""
    look = canvas.LOOKS[skin]
    side, scale = (SIDE + 1) * look.cell, look.cell // 12
    grid = canvas.blank(side, side, look["paper"])
    for i in range(1, SIDE + 1):
        here, middle = i * look.cell + (look.cell - 5 * scale) // 2, (look.cell - 7 * scale) // 2
        canvas.text(grid, middle, here, str(i), look["ink"], scale)
        canvas.text(grid, here - scale, middle, str(i), look["ink"], scale)
    return paint(grid, [0] * SIDE * SIDE, skin)


def paint(grid: np.ndarray, scene: list[int], skin: str) -> np.ndarray:
    cell = canvas.LOOKS[skin].cell
    inner = sprites(skin)[scene].reshape(SIDE, SIDE, cell, cell, 3).transpose(0, 2, 1, 3, 4)
    grid[cell:, cell:] = inner.reshape(SIDE * cell, SIDE * cell, 3)
    return grid


def box_blur(grids: np.ndarray) -> np.ndarray:
    """(..., H, W, 3) 3 x 3 box blur with edge padding."""
    wide = np.pad(grids.astype(np.int16), [(0, 0)] * (grids.ndim - 3) + [(1, 1), (1, 1), (0, 0)], "edge")
    rows = wide[..., :-2, :, :] + wide[..., 1:-1, :, :] + wide[..., 2:, :, :]
    return (rows[..., :-2, :] + rows[..., 1:-1, :] + rows[..., 2:, :]) // 9


@cache
def soft(skin: str) -> np.ndarray:
    return box_blur(sprites(skin))


class SceneEdit(DrawnTask):
    """Answer a question about the scene after all edits. Level = number of edits.

    ``objects``: minimum and maximum number of objects in the first scene. ``pairs``: "train" uses 24 of the 32 pairs of
    color and shape; "held_out" takes at least half of the objects from the other 8.
    """

    name = "scene_edit"
    redraws = True
    version = 1
    trained = (2, 3, 4, 5)
    ood: ClassVar = {
        "size": {"objects": (13, 16)},
        "skin": {"skin": "other"},
        "composition": {"pairs": "held_out"},
        "length": {"level": (6, 8)},
    }
    swaps: ClassVar = (
        HUES,
        SIZES,
        tuple(SHAPES),
        tuple(SHAPES.values()),
        tuple("123456"),
        ("left", "right"),
        ("top", "bottom"),
    )

    def __init__(self, *, objects: tuple[int, int] = (4, 12), pairs: str = "train", **options):
        super().__init__(**options)
        if not all(1 <= level <= 10 for level in self.levels):
            raise ValueError(f"The level is the number of edits, 1 to 10; got {self.levels}.")
        if not 4 <= objects[0] <= objects[1] <= 24:
            raise ValueError(f"objects is the minimum and maximum number of objects, 4 to 24; got {objects}.")
        if pairs not in ("train", "held_out"):
            raise ValueError(f"pairs is train or held_out; got {pairs!r}.")
        self.objects, self.pairs = tuple(objects), pairs

    # -- puzzles -------------------------------------------------------------------------------------------------------
    def targets(self, level: int, stream: Stream) -> dict:
        """The number of objects, their colors, the edits, the query and the answer. The answer is sampled uniformly
        from those that sampled scenes give for this text."""
        kind, count = stream.choice(list(QUERIES)), stream.between(*self.objects)
        while True:
            hues = stream.shuffle(HUES)[:4]
            text = {"count": count, "hues": hues, **self.text(level, kind, hues, stream)}
            seen, fits = set(), 0
            for attempt in range(60):
                found = self.outcome(self.scene(text, stream), text)
                fits += found is not None
                seen |= {found} - {None}
                if len(seen) > DISTINCT[kind] or (attempt >= 8 and not fits):
                    break
            if len(seen) >= DISTINCT[kind]:
                return {**text, "answer": stream.choice(sorted(seen))}

    def text(self, level: int, kind: str, hues: list[str], stream: Stream) -> dict:
        """Sample edits and a query of type ``kind``. There may be no scene for them."""
        edits: list[dict] = []
        hues = list(hues)
        for _ in range(level):
            edit = {"kind": stream.choice(list(EDITS))}
            if edit["kind"] in ("remove", "recolour"):
                edit["what"] = self.what(hues, stream)
            if edit["kind"] == "recolour":
                edit["to"] = stream.choice(HUES)
                hues.append(edit["to"])
            elif edit["kind"] == "add":
                size, hue, shape = stream.choice(SIZES), stream.choice(HUES), stream.choice(list(SHAPES))
                edit |= {
                    "k": stream.between(2, 3),
                    "many": f"{size} {hue} {SHAPES[shape]}",
                    "row": stream.between(1, SIDE),
                }
                hues.append(hue)
            elif edit["kind"] == "move":
                edit |= {
                    "line": stream.choice(("row", "column")),
                    "at": stream.between(1, SIDE),
                    "k": stream.between(1, 2),
                }
                edit["way"] = stream.choice(("left", "right") if edit["line"] == "row" else ("top", "bottom"))
            edits.append(edit)
        query = {"kind": kind, "row": stream.between(1, SIDE)}
        if kind not in ("colour", "shape"):
            query = {"kind": kind, "what": self.what(hues, stream)}
        if kind == "compare":
            query["other"] = self.what(hues, stream)
        return {"edits": edits, "query": query}

    def what(self, hues: list[str], stream: Stream) -> str:
        """A description of objects by one feature, sometimes by two."""
        hue, size, shape = stream.choice(hues), stream.choice(SIZES), stream.choice(list(SHAPES.values()))
        return stream.choice(
            (
                f"{hue} objects",
                f"{hue} objects",
                shape,
                shape,
                f"{size} objects",
                f"{size} {shape}",
                f"{size} {hue} objects",
                f"{hue} {shape}",
            )
        )

    def scene(self, text: dict, stream: Stream) -> list[int]:
        """Sample a scene for a text, with its number of objects in its colors."""
        plain, held = palette(tuple(text["hues"]))
        scene, placed = [0] * SIDE * SIDE, 0
        while placed < text["count"]:
            cell = stream.below(SIDE * SIDE)
            if not scene[cell]:
                scene[cell] = stream.choice(held if self.pairs == "held_out" and 2 * placed < text["count"] else plain)
                placed += 1
        return scene

    def outcome(self, scene: list[int], text: dict) -> str | None:
        """The answer. None if an edit fails on the scene, or if a held-out pair would be in training data."""
        scenes = apply_edits(scene, text["edits"])
        if scenes is None or (self.pairs == "train" and any(not HELD_OUT.isdisjoint(s) for s in scenes)):
            return None
        return answer(scenes[-1], text["query"])

    def draw(self, level: int, targets: dict, stream: Stream) -> dict:
        return {"scene": self.scene(targets, stream), "edits": targets["edits"], "query": targets["query"]}

    def canon(self, puzzle: dict) -> str:
        return canon("scene_edit/1", puzzle)

    def verify(self, puzzle: dict, targets: dict) -> None:
        if self.outcome(puzzle["scene"], puzzle) != targets["answer"]:
            raise Rejected("edits do not suit the scene, or other answer")

    # -- items ---------------------------------------------------------------------------------------------------------
    def build(self, puzzle: dict, level: int, index: int) -> Item:
        stream = self.stream(level, index, "text")
        states = [state_of(scene) for scene in apply_edits(puzzle["scene"], puzzle["edits"])]
        edits = " ".join(phrase(EDITS, edit, stream) for edit in puzzle["edits"])
        question = stream.choice(QUESTIONS).format(edits=edits, query=phrase(QUERIES, puzzle["query"], stream))
        steps = []
        for edit, before, state in zip(puzzle["edits"], states, states[1:], strict=False):
            text = phrase(EDITS, edit, stream)
            if stream.unit() >= self.omit_state_p:
                text = f"{text} {stream.choice(CHANGES).format(cells=changes(before, state))}"
            steps.append(Step(text, self.drawing(state, self.skin), state))
        meta = {"skin": self.skin, "checker": self.name, **puzzle}
        return self.make_item(
            level,
            index,
            puzzle,
            [self.drawing(states[0], self.skin)],
            question,
            steps,
            answer(scene_of(states[-1]), puzzle["query"]),
            self.name,
            meta,
        )

    def drawing(self, state: list[list], skin: str) -> PILImage.Image:
        return canvas.picture(paint(margins(skin).copy(), scene_of(state), skin))

    def state_sentence(self, state: list[list], stream: Stream) -> str:
        rows = [
            f"row {row}: " + ", ".join(f"{name} in column {x}" for y, x, name in state if y == row)
            for row in range(1, SIDE + 1)
            if any(y == row for y, _, _ in state)
        ]
        return stream.choice(SCENES).format(scene="; ".join(rows) or "nothing")

    def in_words(self, item: Item) -> str:
        return self.state_sentence(self.shown(item), self.stream(item.level, item.index, "words"))

    def render_state(self, item: Item, state: list[list]) -> PILImage.Image:
        return self.drawing(state, item.meta["skin"])

    def parse_sketch(self, image: PILImage.Image, meta: dict) -> Parsed:
        """Read each cell as the object with the nearest rendering. Both are blurred slightly first."""
        empty, look = margins(meta["skin"]), canvas.LOOKS[meta["skin"]]
        cell, edge = look.cell, look.cell // 8
        found = box_blur(canvas.pixels(image, *empty.shape[:2]))
        cells = found[cell:, cell:].reshape(SIDE, cell, SIDE, cell, 3).transpose(0, 2, 1, 3, 4)
        cells = cells.reshape(-1, cell, cell, 3)[:, edge:-edge, edge:-edge]
        drawn = soft(meta["skin"])[:, edge:-edge, edge:-edge]
        best = np.stack([np.abs(cells - one).sum((1, 2, 3), dtype=np.int32) for one in drawn]).argmin(0)
        alike = (np.abs(cells - drawn[best]).max(-1) <= canvas.NEAR).mean((1, 2))
        faults = [f"row {i // SIDE + 1} column {i % SIDE + 1} is not clear" for i in np.flatnonzero(alike < LIKE)]
        off = np.abs(found - box_blur(empty)).mean(-1)
        place = np.arange(cell * SIDE) % cell
        inside = (place >= edge) & (place < cell - edge)
        lines = np.ones(off.shape, bool)
        lines[cell:, cell:] = ~(inside[:, None] & inside)
        if off[lines].mean() > FRAME:
            return Parsed(None, 0.0, ("no grid", *faults))
        return Parsed(state_of(best.tolist()), float(alike.min()), tuple(faults))

    # -- answers -------------------------------------------------------------------------------------------------------
    def check(self, text: str, meta: dict) -> Check:
        """The answer is one word or number, case-insensitive, with an optional period."""
        content = (boxed(text) or "").strip().rstrip(".").lower()
        word = re.fullmatch(r"0{0,9}(\d{1,3})|yes|no|[a-z]{3,9}", content, re.ASCII)
        if not word:
            return Check(False, 0.0, "no_answer")
        said = str(int(word[1])) if word[1] else content
        ok = said == answer(apply_edits(meta["scene"], meta["edits"])[-1], meta["query"]).lower()
        return Check(ok, float(ok), "right" if ok else "wrong", said)

    def score(self, text: str, meta: dict) -> dict[str, float]:
        return {"accuracy": self.check(text, meta).partial}

    def wrong(self, item: Item) -> list[str]:
        near = {
            "count": [str(int(item.answer) + d) for d in (1, 2, 10)] if item.answer.isdigit() else [],
            "colour": HUES,
            "shape": tuple(SHAPES),
        }.get(item.state["query"]["kind"], ["Yes", "No", "maybe", "Yes and No"])
        return [a for a in near if a != item.answer]

    def asked_of(self, item: Item, donor: Item) -> Item | None:
        """The item's query on the donor's last scene."""
        meta = {**donor.meta, "query": item.meta["query"]}
        found = answer(apply_edits(meta["scene"], meta["edits"])[-1], meta["query"])
        return found and replace(donor, meta=meta, answer=found)

    # -- evaluation of a model's sketches ------------------------------------------------------------------------------
    def shown(self, item: Item) -> list[list]:
        return state_of(item.meta["scene"])

    def kind(self, item: Item) -> str:
        return item.meta["query"]["kind"]

    def variables(self, state: list[list]) -> dict:
        """The object in each nonempty cell."""
        return {(row, column): name for row, column, name in state}

    def after(self, state: list[list], words: str) -> Any:
        """The state after the edits that a text states. None if it states none or an edit fails."""
        edits = edits_in(words)
        scenes = apply_edits(scene_of(state), edits)
        return state_of(scenes[-1]) if edits and scenes else None

    def state_said(self, item: Item, said: list[str]) -> Any:
        return self.after(self.shown(item), " ".join(said))

    def legal(self, item: Item, before: Any, said: str, after: Any) -> bool:
        return before is not None and after == self.after(before, said)


@cache
def palette(hues: tuple[str, ...]) -> tuple[list[int], list[int]]:
    """(training objects, held-out objects) of these colors."""
    codes = [code for code in CODES.values() if NAMES[code].split()[1] in hues]
    return [c for c in codes if c not in HELD_OUT], [c for c in codes if c in HELD_OUT]


def phrase(templates: dict[str, tuple[str, ...]], thing: dict, stream: Stream) -> str:
    """An edit or a query in a random wording."""
    return stream.choice(templates[thing["kind"]]).format(**thing)


def changes(before: list[list], after: list[list]) -> str:
    """The cells that differ, with their new contents."""
    old, new = ({(y, x): name for y, x, name in state} for state in (before, after))
    return ", ".join(
        f"row {y} column {x}: {new.get((y, x), 'empty')}"
        for y, x in sorted({*old, *new})
        if old.get((y, x)) != new.get((y, x))
    )
