"""``fold_punch``: a sheet is folded and punched through all layers; find the holes in the unfolded sheet.

The sheet has n x n cells, each of four triangles (quarters), so that a fold along a grid line or a diagonal maps
quarters to quarters. A fold is {"to": way, "at": k}: the part of the paper behind the line is folded over it towards
L, R, U, D (the line is x = k or y = k) or a corner (UL, DR: x + y = k; UR, DL: y - x = k). A sketch shows the sheet
after each unfolding. A state is {"rows": [...]} with one letter per cell: ``.`` no paper, ``#`` paper, ``o`` a hole,
A, B, C, D the upper left, upper right, lower right, lower left half of the cell.
"""

from __future__ import annotations

import re
from functools import cache, reduce
from typing import ClassVar

import numpy as np
from PIL import Image as PILImage

from ..trace import Image, Message, Text, Trace
from . import canvas
from .base import READ, Item, Parsed, Rejected, Step
from .canvas import LOOKS
from .checkers import Check, boxed
from .drawn import DrawnTask
from .stream import Stream
from .stream import canon as name_of

AXES, CORNERS = ("L", "R", "U", "D"), ("UL", "UR", "DL", "DR")
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
BACK = {"L": "R", "R": "L", "U": "D", "D": "U", "UL": "DR", "DR": "UL", "UR": "DL", "DL": "UR"}
POINTS = {
    "L": (0, -1),
    "R": (0, 1),
    "U": (-1, 0),
    "D": (1, 0),
    "UL": (-1, -1),
    "UR": (-1, 1),
    "DL": (1, -1),
    "DR": (1, 1),
}
BITS = {".": 0, "#": 15, "o": 15, "A": 9, "B": 3, "C": 6, "D": 12}  # quarters: 1 top, 2 right, 4 bottom, 8 left
LETTERS = {bits: letter for letter, bits in BITS.items() if letter != "o"}
SMALLEST, MOST_HOLES, TRIES = 8, 16, 40  # smallest flap in quarters, most holes of an answer, tries per fold
MISFIT = 30  # largest mean difference (0-255) between a cell and the nearest template
SHADES = ("paper", "yellow", "ink", "grey", "blue", "red")  # colors of a rendered sheet, by index
PAPER, SHEET, INK, GRID, DASH, ARROW = range(len(SHADES))

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

Cell = tuple[int, int]


# -- paper -------------------------------------------------------------------------------------------------------------
@cache
def fold_map(n: int, to: str, at: int) -> np.ndarray:
    """(4 n n) the target of each quarter under a fold: itself if it is not behind the line, -1 if off the sheet."""
    r, c, q = np.mgrid[:n, :n, :4].reshape(3, -1)
    y, x = (
        6 * r + 3 + np.array([-2, 0, 2, 0])[q],
        6 * c + 3 + np.array([0, 2, 0, -2])[q],
    )  # centers; a cell is 6 units wide
    k = 6 * at
    behind, v, u = {
        "L": (x > k, y, 2 * k - x),
        "R": (x < k, y, 2 * k - x),
        "U": (y > k, 2 * k - y, x),
        "D": (y < k, 2 * k - y, x),
        "UL": (x + y > k, k - x, k - y),
        "DR": (x + y < k, k - x, k - y),
        "UR": (y - x > k, x + k, y - k),
        "DL": (y - x < k, x + k, y - k),
    }[to]
    inside = (v >= 0) & (v < 6 * n) & (u >= 0) & (u < 6 * n)
    dy, dx = v % 6 - 3, u % 6 - 3
    quarter = np.where(dx == 0, np.where(dy < 0, 0, 2), np.where(dx > 0, 1, 3))
    return np.where(behind, np.where(inside, (v // 6 * n + u // 6) * 4 + quarter, -1), np.arange(4 * n * n))


def apply_fold(where: np.ndarray, move: np.ndarray) -> np.ndarray | None:
    """The position of each quarter after one more fold. None if the flap is too small or does not land on paper."""
    paper = np.zeros(len(move), bool)
    paper[where] = True
    flap = paper & (move != np.arange(len(move)))
    land = move[flap]
    return move[where] if len(land) >= SMALLEST and (land >= 0).all() and paper[land].all() else None


def positions_by_fold(n: int, folds: list[dict]) -> list[np.ndarray]:
    """The position of each quarter of the open sheet after 0, 1, ... folds."""
    places = [np.arange(4 * n * n)]
    for fold in folds:
        places.append(fold_map(n, fold["to"], fold["at"])[places[-1]])
    return places


def holes(n: int, where: np.ndarray, punches: list[list[int]]) -> np.ndarray:
    """The cells of the open sheet (as indices) that are hit by punches through the folded sheet."""
    return np.flatnonzero(np.isin(where[::4] // 4, [r * n + c for r, c in punches]))


def solve(n: int, folds: list[dict], punches: list[list[int]]) -> list[dict]:
    """The states of the punched sheet after 0, 1, ... folds. Raises Rejected if a state has a single quarter of a
    cell."""
    places = positions_by_fold(n, folds)
    punched = 4 * holes(n, places[-1], punches)
    return [{"rows": rows_of(n, where, where[punched] // 4)} for where in places]


def rows_of(n: int, where: np.ndarray, punched: np.ndarray) -> list[str]:
    paper = np.zeros(4 * n * n, int)
    paper[where] = 1
    bits = paper.reshape(-1, 4) @ (1, 2, 4, 8)
    if not set(bits.tolist()) <= set(LETTERS):
        raise Rejected("a quarter of a cell")
    letters = [LETTERS[b] for b in bits.tolist()]
    for cell in punched.tolist():
        letters[cell] = "o"
    return ["".join(letters[r * n : r * n + n]) for r in range(n)]


def cells_of(rows: list[str], letter: str = "o") -> list[Cell]:
    """Cells counted from (1, 1), row by row."""
    return [(r + 1, c + 1) for r, row in enumerate(rows) for c, value in enumerate(row) if value == letter]


def format_cells(cells: list[Cell]) -> str:
    return ",".join(f"({r},{c})" for r, c in cells)


# -- images ------------------------------------------------------------------------------------------------------------
@cache
def empty_image(skin: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The empty image: (H, W) color indices with row and column numbers, and (H, W) the quarter of each pixel (4 n n:
    none)."""
    s = LOOKS[skin].cell // 2
    numbers = canvas.blank((n + 2) * s, (n + 2) * s)
    for k in range(n):
        at = (k + 1) * s + (s - 5) // 2
        canvas.text(numbers, (s - 7) // 2, at, str(k + 1))
        canvas.text(numbers, at - 1, (s - 5) // 2, str(k + 1))
    shades = np.where(numbers[..., 0] == 0, INK, PAPER).astype(np.uint8)
    y, x = np.mgrid[:s, :s]
    quarter = np.where(y > x, np.where(y + x >= s, 2, 3), np.where(y + x >= s, 1, 0))
    under = np.full(shades.shape, 4 * n * n)
    under[s:-s, s:-s] = 4 * np.arange(n * n).reshape(n, n).repeat(s, 0).repeat(s, 1) + np.tile(quarter, (n, n))
    return shades, under


@cache
def hole_mask(s: int) -> np.ndarray:
    y, x = np.mgrid[:s, :s] * 2 - s + 1
    return y * y + x * x <= (s // 2) ** 2


@cache
def palette(skin: str) -> np.ndarray:
    return np.array([LOOKS[skin][name] for name in SHADES], np.uint8)


def quarters(rows: list[str]) -> np.ndarray:
    """(4 n n) mask of the quarters with paper."""
    bits = np.array([BITS[letter] for row in rows for letter in row])
    return (bits[:, None] >> np.arange(4) & 1).ravel().astype(bool)


def shade(skin: str, rows: list[str]) -> np.ndarray:
    """(H, W) color indices of a rendered sheet."""
    s, thick = LOOKS[skin].cell // 2, LOOKS[skin].line // 2
    empty, under = empty_image(skin, len(rows))
    paper = np.append(quarters(rows), False)[under]
    shades = empty.copy()
    shades[paper] = SHEET
    shades[s : -s + 1 : s, s : -s + 1] = shades[s : -s + 1, s : -s + 1 : s] = GRID
    inner = paper.copy()
    inner[thick:] &= paper[:-thick]
    inner[:-thick] &= paper[thick:]
    inner[:, thick:] &= paper[:, :-thick]
    inner[:, :-thick] &= paper[:, thick:]
    shades[paper & ~inner] = INK
    for r, c in cells_of(rows):
        shades[r * s : r * s + s, c * s : c * s + s][hole_mask(s)] = INK
    return shades


def draw_sheet(skin: str, rows: list[str]) -> PILImage.Image:
    return canvas.picture(palette(skin).take(shade(skin, rows), 0))


def line_of(n: int, to: str, at: int) -> tuple[Cell, Cell]:
    """The two grid corners (y, x) at the ends of a fold's line."""
    if to in AXES:
        return ((0, at), (n, at)) if to in "LR" else ((at, 0), (at, n))
    if to in ("UL", "DR"):
        return (min(at, n), max(at - n, 0)), (max(at - n, 0), min(at, n))
    return (max(at, 0), max(-at, 0)), (min(n + at, n), min(n - at, n))


@cache
def dashes(skin: str, n: int, to: str, at: int) -> np.ndarray:
    """(H, W) mask of the dashed line of a fold."""
    s, (y0, x0), (y1, x1) = LOOKS[skin].cell // 2, *line_of(n, to, at)
    image = canvas.blank((n + 2) * s, (n + 2) * s)
    parts = 2 * max(abs(y1 - y0), abs(x1 - x0))
    spots = [
        (s + (y0 * (parts - i) + y1 * i) * s // parts, s + (x0 * (parts - i) + x1 * i) * s // parts)
        for i in range(parts + 1)
    ]
    for i in range(0, parts, 2):
        canvas.line(image, spots[i : i + 2], LOOKS[skin].line // 2 + 1, "ink")
    return image[..., 0] == 0


def draw_fold(skin: str, rows: list[str], fold: dict) -> PILImage.Image:
    """Render the sheet with the dashed line of its next fold and an arrow from the flap to its new position."""
    s, n, (dy, dx) = LOOKS[skin].cell // 2, len(rows), POINTS[fold["to"]]
    shades, move = shade(skin, rows), fold_map(n, **fold)
    shades[dashes(skin, n, **fold)] = DASH
    flap = np.flatnonzero(quarters(rows) & (move != np.arange(4 * n * n)))
    (y0, x0), (y1, x1) = (
        ((int((f // 4 // n).mean() * 2) + 3) * s // 2, (int((f // 4 % n).mean() * 2) + 3) * s // 2)
        for f in (flap, move[flap])
    )
    reach, size = max(abs(y1 - y0), abs(x1 - x0), s), s // 3
    tip, thick = (y0 + dy * reach, x0 + dx * reach), LOOKS[skin].line // 2
    for k in range(reach - size):
        y, x = y0 + dy * k - thick // 2, x0 + dx * k - thick // 2
        shades[y : y + thick, x : x + thick] = ARROW
    y, x = np.mgrid[-2 * size : 2 * size + 1, -2 * size : 2 * size + 1]
    along, across = -y * dy - x * dx, y * dx - x * dy
    head = (np.abs(across) <= along) & (along <= (size + 1) * (abs(dy) + abs(dx)))
    shades[y[head] + tip[0], x[head] + tip[1]] = ARROW
    return canvas.picture(palette(skin).take(shades, 0))


@cache
def templates(skin: str) -> np.ndarray:
    """(7, h, w, 3) rendering of the inner pixels of each letter of ``BITS``."""
    s, edge = LOOKS[skin].cell // 2, LOOKS[skin].cell // 16
    return np.array(
        [
            np.asarray(draw_sheet(skin, [letter]), np.int16)[s + edge : 2 * s - edge, s + edge : 2 * s - edge]
            for letter in BITS
        ]
    )


class FoldPunch(DrawnTask):
    """Name the holes of an unfolded sheet. Level = number of folds, ``n`` = cells per side of the sheet.

    From level ``diagonal`` on, half of the items have one diagonal fold. The last image shows the punched sheet, each
    earlier one a fold. Every unfolding adds holes.
    """

    name = "fold_punch"
    trained = (1, 2, 3, 4)
    ood: ClassVar = {"size": {"level": 5}, "skin": {"skin": "other"}, "composition": {"level": 3, "diagonal": 3}}
    swaps: ClassVar = (("left", "right"), ("top", "bottom"), ("upper", "lower"), tuple("123456789"))

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
        needs, layers = np.zeros(n * n, int), np.bincount(last[:, 0], minlength=n * n).tolist()
        np.bitwise_or.at(needs, last[:, 0], moved)  # bit k: fold k moved one of the layers, so undoing it adds a hole
        needs = needs.tolist()
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
            self.name,
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
        user = Message("user", (Image(item.images[k]), Text(stream.choice(READ))))
        return Trace(
            f"{item.id}-read",
            (user, Message("assistant", (Text(description),))),
            self.name,
            self.split,
            level,
            "direct",
            description,
            "same_text",
            item.meta,
        )

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
