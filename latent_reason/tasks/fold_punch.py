"""``fold_punch``: a sheet is folded and punched through all layers; find the holes in the unfolded sheet.

The sheet has n x n cells, each of four triangles (quarters), so that a fold along a grid line or a diagonal maps
quarters to quarters. A fold is {"to": way, "at": k}: the part of the paper behind the line is folded over it towards
L, R, U, D (the line is x = k or y = k) or a corner (UL, DR: x + y = k; UR, DL: y - x = k). A sketch shows the sheet
after each unfolding. A state is {"rows": [...]} with one letter per cell: ``.`` no paper, ``#`` paper, ``o`` a hole,
A, B, C, D the upper left, upper right, lower right, lower left half of the cell.
"""

from __future__ import annotations

import re
from functools import reduce
from typing import ClassVar

import numpy as np
from PIL import Image as PILImage

from ..trace import Trace
from . import canvas
from .base import READ
from .canvas import LOOKS
from .checkers import Check, boxed
from .drawn import DrawnTask
from .fold_punch_rules import (
    AXES,
    BACK,
    BITS,
    CORNERS,
    MOST_HOLES,
    TRIES,
    Cell,
    apply_fold,
    cells_of,
    fold_map,
    positions_by_fold,
    rows_of,
    solve,
)
from .fold_punch_view import (
    MISFIT,
    draw_fold,
    draw_sheet,
    line_of,
    templates,
)
from .item import Item, Parsed, Rejected, Step
from .stream import Stream
from .stream import canon as name_of

WORDS = {
    "L": "left",
    "R": "right",
    "U": "top",
    "D": "bottom",
    "UL": "upper left",
    "UR": "upper right",
    "DL": "lower left",
    "DR": "lower right",
}

QUESTIONS = (
    "Each picture shows one fold along the dashed line, the last the folded paper punched through all layers.",
    "The paper is folded over the dashed lines as the arrows say, then the black holes go through all its layers.",
    "Follow the folds; in the last picture holes are punched through every layer.",
    "A sheet is folded step by step, picture by picture. At the end black holes are punched through all of it.",
    "The arrows tell how the sheet is folded. The last picture shows where the folded sheet is punched.",
)
ASKS = (
    "Where are the holes when it is unfolded? List all as (row,column).",
    "Which cells have a hole once the sheet is open? Write each as (row,column).",
    "List the (row,column) of every hole in the open sheet.",
    "Unfold it: give every hole as (row,column).",
    "Name all holes of the unfolded sheet as (row,column).",
)
STEPS = (
    "Undo fold {k}: the flap goes back to the {way} over the {line}.",
    "Open fold {k}, the flap turns to the {way} over the {line}.",
    "Unfold number {k}: over the {line} to the {way}.",
    "Take back fold {k} to the {way}, mirrored at the {line}.",
    "Fold {k} is opened to the {way} along the {line}.",
)
PLACES = (
    "Now the holes are {cells}.",
    "Holes at {cells}.",
    "This gives the holes {cells}.",
    "So far holes: {cells}.",
    "There are holes at {cells}.",
)
SHEETS = (
    "Sheet: {rows}.",
    "The sheet: {rows}.",
    "Paper row by row: {rows}.",
    "The paper is {rows}.",
    "Rows of the sheet: {rows}.",
    "Now the sheet is {rows}.",
)


def format_cells(cells: list[Cell]) -> str:
    return ",".join(f"({r},{c})" for r, c in cells)


class FoldPunch(DrawnTask):
    """Name the holes of an unfolded sheet. Level = number of folds, ``n`` = cells per side of the sheet.

    From level ``diagonal`` on, half of the items have one diagonal fold. The last image shows the punched sheet, each
    earlier one a fold. Every unfolding adds holes.
    """

    name = "fold_punch"
    trained = (1, 2, 3, 4)
    ood: ClassVar = {"size": {"level": 5}, "skin": {"skin": "other"}, "composition": {"level": 3, "diagonal": 3}}
    swaps = (("left", "right"), ("top", "bottom"), ("upper", "lower"), tuple("123456789"))

    def __init__(self, *, n: int = 8, diagonal: int = 4, **options):
        super().__init__(**options)
        if not 6 <= n <= 9:
            raise ValueError(f"n is the number of cells per side, 6 to 9; got {n}.")
        if not set(self.levels) <= set(range(1, 6)):
            raise ValueError(f"the level is the number of folds, 1 to 5; got {self.levels}")
        self.n, self.diagonal = n, diagonal

    def targets(self, level: int, stream: Stream) -> tuple[int, int | None]:
        """The number of punches and the index of the diagonal fold, if any."""
        slanted = level >= self.diagonal and stream.below(2)
        return stream.between(1, 3), stream.below(level) if slanted else None

    def draw(self, level: int, targets: tuple[int, int | None], stream: Stream) -> dict:
        count, slanted = targets
        n, folds, places = self.n, [], [np.arange(4 * self.n * self.n)]
        for k in range(level):
            for _ in range(TRIES):
                to = stream.choice(CORNERS if k == slanted else AXES)
                low, high = (1, n - 1) if k != slanted else (2, 2 * n - 2) if to in ("UL", "DR") else (2 - n, n - 2)
                at = stream.between(low, high)
                if (after := apply_fold(places[-1], fold_map(n, to, at))) is not None:
                    break
            else:
                raise Rejected("no fold fits")
            folds.append({"to": to, "at": at})
            places.append(after)
        cells = np.array(places).reshape(level + 1, -1, 4)
        last = cells[-1] // 4
        whole = (np.diff(np.sort(cells[-1], 1), axis=1) > 0).all(1)  # a diagonal crease folds a cell in half
        creased = set(last[~whole].ravel().tolist())
        spots = [c for c in last[whole, 0].tolist() if c not in creased]
        moved = (np.diff(cells[:, :, 0], axis=0) != 0).T @ (1 << np.arange(level))
        masks, layers = np.zeros(n * n, int), np.bincount(last[:, 0], minlength=n * n).tolist()
        np.bitwise_or.at(masks, last[:, 0], moved)  # bit k: fold k moved one of the layers, so undoing it adds a hole
        needs = masks.tolist()
        for _ in range(TRIES if spots else 0):
            punches = sorted({stream.choice(spots) for _ in range(count)})
            undone = reduce(int.__or__, (needs[c] for c in punches))
            if len(punches) == count and undone + 1 == 1 << level and sum(layers[c] for c in punches) <= MOST_HOLES:
                return {"n": n, "folds": folds, "punches": [list(divmod(c, n)) for c in punches]}
        raise Rejected("no punches fit")

    def canon(self, puzzle: dict) -> str:
        return name_of("fold_punch/1", {**puzzle, "punches": sorted(puzzle["punches"])})

    def verify(self, puzzle: dict, targets: tuple[int, int | None]) -> None:
        solve(**puzzle)

    def build(self, puzzle: dict, level: int, index: int) -> Item:
        n, folds, stream = puzzle["n"], puzzle["folds"], self.stream(level, index, "text")
        states = solve(**puzzle)
        blank = [[row.replace("o", "#") for row in state["rows"]] for state in states]
        images = [draw_fold(self.skin, rows, fold) for rows, fold in zip(blank, folds, strict=False)]
        images.append(draw_sheet(self.skin, states[-1]["rows"]))
        steps = []
        for k in range(level, 0, -1):
            fold, state = folds[k - 1], states[k - 1]
            sentence = stream.choice(STEPS).format(k=k, way=WORDS[BACK[fold["to"]]], line=line_words(n, fold))
            if stream.unit() >= self.omit_state_p:
                sentence = f"{sentence} {stream.choice(PLACES).format(cells=format_cells(cells_of(state['rows'])))}"
            steps.append(Step(sentence, draw_sheet(self.skin, state["rows"]), state))
        gold_cells = cells_of(states[0]["rows"])
        meta = {**puzzle, "holes": [list(cell) for cell in gold_cells], "skin": self.skin, "checker": self.name}
        return self.make_item(
            level,
            index,
            puzzle,
            images,
            f"{stream.choice(QUESTIONS)} {stream.choice(ASKS)}",
            steps,
            format_cells(gold_cells),
            meta,
        )

    def state_sentence(self, state: dict, stream: Stream) -> str:
        return stream.choice(SHEETS).format(rows=" / ".join(" ".join(row) for row in state["rows"]))

    def in_words(self, item: Item) -> str:
        meta = item.meta
        sentences = [f"A sheet of {meta['n']} rows and {meta['n']} columns."]
        sentences += [f"Fold {k}: {fold_words(meta['n'], fold)}." for k, fold in enumerate(meta["folds"], 1)]
        punches = format_cells([(r + 1, c + 1) for r, c in meta["punches"]])
        return " ".join([*sentences, f"Then it is punched through all layers at {punches}."])

    def reading_trace(self, index: int) -> Trace:
        """Half of the traces describe the image of a fold instead: its line and the direction of the flap."""
        level = self.levels[index % len(self.levels)]
        stream = self.stream(level, index, "reading_fold")
        if stream.below(2):
            return super().reading_trace(index)
        item, k = self.item(level, index), stream.below(level)
        description = f"A fold: {fold_words(self.n, item.meta['folds'][k])}."
        return self.description_trace(item, item.images[k], description, stream.choice(READ))

    def render_state(self, item: Item, state: dict) -> PILImage.Image:
        return draw_sheet(item.meta["skin"], state["rows"])

    def parse_sketch(self, image: PILImage.Image, meta: dict) -> Parsed:
        look, n = LOOKS[meta["skin"]], meta["n"]
        s, edge = look.cell // 2, look.cell // 16
        image_pixels = canvas.pixels(image, (n + 2) * s, (n + 2) * s)[s:-s, s:-s].astype(np.int16)
        cells = image_pixels.reshape(n, s, n, s, 3).swapaxes(1, 2)[:, :, None, edge : s - edge, edge : s - edge]
        off = np.abs(cells - templates(meta["skin"])).mean((-1, -2, -3))
        confidence = float(np.exp(-off.min(-1).mean() / MISFIT))
        if (off.min(-1) > MISFIT).any():
            return Parsed(None, confidence, ("cells that cannot be read",))
        rows = ["".join("".join(BITS)[k] for k in row) for row in off.argmin(-1)]
        faults = [] if cells_of(rows) else ["no hole"]
        if self.stage({"rows": rows}, meta) is None:
            faults.append("paper that no fold or unfolding leaves")
        return Parsed({"rows": rows}, confidence, tuple(faults))

    def stage(self, state: dict, meta: dict) -> int | None:
        """The number of folds left in a state. None if its paper matches no stage."""
        rows = [row.replace("o", "#") for row in state["rows"]]
        left = [rows_of(meta["n"], where, np.array([], int)) for where in positions_by_fold(meta["n"], meta["folds"])]
        return left.index(rows) if rows in left else None

    def shown(self, item: Item) -> dict:
        return solve(item.meta["n"], item.meta["folds"], item.meta["punches"])[-1]

    def legal(self, item: Item, before: dict | None, said: str, after: dict) -> bool:
        """Whether the last fold was opened correctly: each hole kept, and mirrored if it goes through the flap."""
        k = None if before is None else self.stage(before, item.meta)
        if not k:
            return False
        n, fold = item.meta["n"], item.meta["folds"][k - 1]
        earlier = np.unique(positions_by_fold(n, item.meta["folds"])[k - 1])
        punched = {(r - 1) * n + c - 1 for r, c in cells_of(before["rows"])}
        move = fold_map(n, fold["to"], fold["at"])
        opened = [q // 4 for q in earlier.tolist() if q % 4 == 0 and move[q] // 4 in punched]
        return after["rows"] == rows_of(n, earlier, np.array(opened, int))

    def check(self, text: str, meta: dict) -> Check:
        """The answer is the set of holes. ``partial`` is the intersection over union."""
        content = boxed(text)
        pairs = re.findall(r"\(\s*([0-9]{1,3})\s*,\s*([0-9]{1,3})\s*\)", content or "")
        rest = re.sub(r"\(\s*[0-9]{1,3}\s*,\s*[0-9]{1,3}\s*\)", "", content or "")
        if not pairs or not re.fullmatch(r"(?:and|[\s,;.{}\[\]])*", rest):
            return Check(False, 0.0, "no_answer")
        answered, gold = {(int(r), int(c)) for r, c in pairs}, {tuple(cell) for cell in meta["holes"]}
        partial = len(answered & gold) / len(answered | gold)
        reason = f"{len(answered & gold)} of {len(gold)} holes, {len(answered - gold)} wrong"
        return Check(partial == 1, partial, reason, [list(cell) for cell in sorted(answered)])

    def score(self, text: str, meta: dict) -> dict[str, float]:
        result = self.check(text, meta)
        count, gold = len(result.parsed or []), len(meta["holes"])
        return {"success": float(result.ok), "iou": result.partial, "count": float(count == gold)}

    def wrong(self, item: Item) -> list[str]:
        n, gold = item.meta["n"], [tuple(cell) for cell in item.meta["holes"]]
        free = next((r, c) for r in range(1, n + 1) for c in range(1, n + 1) if (r, c) not in gold)
        punches = [(r + 1, c + 1) for r, c in item.meta["punches"]]
        return [format_cells(cells) for cells in (gold[1:], gold[:-1], [*gold, free], [free, *gold[1:]], punches)]


def fold_words(n: int, fold: dict) -> str:
    return f"the {WORDS[BACK[fold['to']]]} part is folded to the {WORDS[fold['to']]} over the {line_words(n, fold)}"


def line_words(n: int, fold: dict) -> str:
    """A fold's line in text: between two rows or columns (from 1), or the diagonal from cell to cell."""
    to, at = fold["to"], fold["at"]
    if len(to) == 1:
        return f"line between {'columns' if to in 'LR' else 'rows'} {at} and {at + 1}"
    (y0, x0), (y1, x1) = line_of(n, to, at)
    if to in ("UL", "DR"):
        return f"diagonal from ({y0},{x0 + 1}) to ({y1 + 1},{x1})"
    return f"diagonal from ({y0 + 1},{x0 + 1}) to ({y1},{x1})"
