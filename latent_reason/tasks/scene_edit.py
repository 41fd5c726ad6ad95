"""``scene_edit``: answer a question about a scene of colored shapes after a list of edits.

A scene is a list of 36 codes, row by row: 0 for an empty cell, else the number in ``NAMES`` ("small red circle"). A
state is the list of its objects, ``[row, column, name]`` with rows and columns from 1. The edits and the query are
sampled first, then one of the answers they allow, then a scene with this answer, so the text does not reveal it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
from PIL import Image as PILImage

from . import canvas
from .checkers import Check, boxed
from .drawn import DrawnTask
from .item import Item, Parsed, Rejected, Step
from .scene_edit_rules import (
    CODES,
    HUES,
    NAMES,
    SHAPES,
    SIDE,
    SIZES,
    answer,
    apply_edits,
    scene_of,
    state_of,
)
from .scene_edit_view import FRAME, LIKE, box_blur, margins, paint, soft
from .scene_edit_words import (
    CHANGES,
    DISTINCT,
    EDITS,
    QUERIES,
    QUESTIONS,
    SCENES,
    changes,
    edits_in,
    phrase,
)
from .stream import Stream, canon

HELD_OUT = {c for i, hue in enumerate(HUES) for c, n in enumerate(NAMES) if f" {hue} {list(SHAPES)[i % 4]}" in n}


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
    swaps = (
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
            seen: set[str] = set()
            fits = 0
            for attempt in range(60):
                found = self.outcome(self.scene(text, stream), text)
                if found is not None:
                    fits += 1
                    seen.add(found)
                if len(seen) > DISTINCT[kind] or (attempt >= 8 and not fits):
                    break
            if len(seen) >= DISTINCT[kind]:
                return {**text, "answer": stream.choice(sorted(seen))}

    def text(self, level: int, kind: str, hues: list[str], stream: Stream) -> dict:
        """Sample edits and a query of type ``kind``. There may be no scene for them."""
        edits: list[dict] = []
        hues = list(hues)
        for _ in range(level):
            edit: dict = {"kind": stream.choice(list(EDITS))}
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
        said = answer(scene_of(states[-1]), puzzle["query"])
        assert said is not None  # or the puzzle is rejected
        return self.make_item(
            level,
            index,
            puzzle,
            [self.drawing(states[0], self.skin)],
            question,
            steps,
            said,
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
        return None if found is None else replace(donor, meta=meta, answer=found)

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
