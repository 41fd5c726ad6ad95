"""``jigsaw``: order numbered tiles so that they form the picture. A sketch shows the tiles placed so far."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from itertools import groupby
from typing import Annotated, ClassVar

import numpy as np
from PIL import Image as PILImage

from ..values import Bounds, Interval
from .canvas import LOOKS, Look, blank, disc, picture, pixels, rectangle, text, triangle
from .checkers import Check, boxed
from .drawn import DrawnTask
from .item import Item, Parsed, Rejected, Step
from .stream import Stream, canon

SIDE = 168  # side of a scene in pixels of the plain style, divisible by 2, 3 and 4
NAMES = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "pink")
TEXTURES = ("bands", "rings")
NODES = 4000  # partial assemblies to search before a scene is rejected as too uniform
FAR = 40  # largest mean difference (0-255) between a place and the nearest tile

QUESTIONS = (
    "In which order do the tiles make the picture?",
    "Put the tiles in order, row by row.",
    "Which tile goes where? Read row by row.",
    "Solve the jigsaw: name the tiles in reading order.",
    "The tiles are mixed up. What is their right order?",
    "Order the tiles so that the picture is whole.",
)
PLACES = (
    "Place {tiles}.",
    "Next {tiles}.",
    "Then {tiles}.",
    "Put {tiles} there.",
    "Now {tiles} fits.",
    "Go on with {tiles}.",
)
CLAUSES = ("So far: {all}.", "In place: {all}.", "Order so far: {all}.", "Tiles lie: {all}.", "We have: {all}.")
STATES = (
    "Placed: {all}; {rest} empty.",
    "The tiles in place: {all}; empty places: {rest}.",
    "Tiles from the top left: {all}; then {rest} grey.",
    "Row by row: {all}; {rest} left to fill.",
    "The picture holds: {all}; still grey: {rest}.",
)


@lru_cache(16)
def scene(seed: int, texture: str) -> np.ndarray:
    """(SIDE, SIDE) index in ``NAMES`` of each pixel's color: a texture of three colors, shapes and letters."""
    stream = Stream.of("jigsaw scene", texture, seed)
    colours = stream.shuffle(range(len(NAMES)))
    y, x = np.ogrid[:SIDE, :SIDE]
    wide = stream.between(9, 18)
    if texture == "bands":
        along, across = stream.choice([(2, 1), (1, 2), (3, 1), (1, 3), (1, 1), (2, 3), (3, 2)])
        value = (along * y + across * x * stream.choice((1, -1))) // (wide * max(along, across) // 2 * 2)
    else:
        value = np.maximum(abs(y - stream.between(0, SIDE)), abs(x - stream.between(0, SIDE))) // wide
    canvas = np.array(colours[:3], np.uint8)[value % 3]
    for _ in range(stream.between(7, 10)):
        kind, colour, size = stream.below(4), stream.choice(colours[3:]), stream.between(12, 26)
        top, left = stream.between(0, SIDE), stream.between(0, SIDE)
        if kind == 0:
            disc(canvas, top, left, size, colour)
        elif kind == 1:
            rectangle(canvas, top - size, left - size // 2, 2 * size, size, colour)
        elif kind == 2:
            triangle(canvas, top, left, size, stream.choice("UDLR"), colour)
        else:
            text(canvas, min(top, SIDE - 43), min(left, SIDE - 31), stream.choice("ABCDEFGHKMNPRSTWXZ"), colour, 6)
    canvas.flags.writeable = False
    return canvas


def tiles_of(canvas: np.ndarray, grid: int) -> np.ndarray:
    """(grid * grid, t, t, ...) the tiles in reading order."""
    t = len(canvas) // grid
    return np.array([canvas[r * t : (r + 1) * t, c * t : (c + 1) * t] for r in range(grid) for c in range(grid)])


def edge_costs(tiles: np.ndarray) -> tuple[list[list[int]], list[list[int]]]:
    """``right[a][b]`` and ``below[a][b]``: number of differing pixels between touching edges if b is right of or below
    a."""
    right = (tiles[:, None, :, -1] != tiles[None, :, :, 0]).sum(-1)
    below = (tiles[:, None, -1, :] != tiles[None, :, 0, :]).sum(-1)
    return right.tolist(), below.tolist()


def cost(order: list[int], right: list[list[int]], below: list[list[int]], grid: int) -> int:
    """Number of differing pixels along all inner edges of the tiles in reading order."""
    return sum(
        (right[order[k - 1]][t] if k % grid else 0) + (below[order[k - grid]][t] if k >= grid else 0)
        for k, t in enumerate(order)
    )


def is_unique(tiles: np.ndarray, grid: int, margin: float) -> bool:
    """Whether the tiles as ordered have the lowest cost, and every other order costs more by the fraction ``margin``
    plus a quarter of a tile's side.

    Exact branch and bound in reading order. The bound is the cheapest edge of every tile that is not in the first
    column or row. Returns False after ``NODES`` partial assemblies.
    """
    right, below = edge_costs(tiles)
    gold = range(grid * grid)
    least = [[min(costs[a][t] for a in gold if a != t) for t in gold] for costs in (right, below)]
    limit, nodes = cost(list(gold), right, below, grid) * (1 + margin) + tiles.shape[1] // 4, 0
    stack: list[tuple[tuple[int, ...], int]] = [((), sum(map(sum, least)))]
    while stack:
        order, total = stack.pop()
        k = len(order)
        if k == len(gold):
            if order != tuple(gold):
                return False
            continue
        nodes += 1
        if nodes > NODES:
            return False
        remaining = [t for t in gold if t not in order]
        saved = sum(
            sum(
                sorted(cheap[t] for t in remaining)[len(remaining) - firsts :]
            )  # edges that tiles of the first row and column save
            for cheap, firsts in zip(least, (grid - -(-k // grid), max(grid - k, 0)), strict=True)
        )
        for t in remaining:
            added = (right[order[-1]][t] if k % grid else 0) + (below[order[k - grid]][t] if k >= grid else 0)
            added -= least[0][t] + least[1][t]
            if total + added - saved <= limit:
                stack.append(((*order, t), total + added))
    return True


# -- images ------------------------------------------------------------------------------------------------------------
def sizes(grid: int, look: Look) -> tuple[int, int]:
    """Sides of an image and of a tile in pixels."""
    side = 6 * look.cell
    return side, (side - 5 * look.line) // 12 * 12 // grid


def numbered_tiles(meta: dict) -> np.ndarray:
    """(grid * grid, t, t, 3) the tiles by number. Each number is in a box in the center, so the edges are visible."""
    look, grid = LOOKS[meta["skin"]], meta["grid"]
    t = sizes(grid, look)[1]
    at = np.arange(t * grid) * SIDE // (t * grid)
    index = scene(meta["scene"], meta["texture"])[np.ix_(at, at)]
    tiles = np.take(np.array([look[name] for name in NAMES], np.uint8), tiles_of(index, grid)[meta["order"]], axis=0)
    for k, tile in enumerate(tiles):
        words = str(k + 1)
        width = 12 * len(words)
        rectangle(tile, t // 2 - 9, (t - width) // 2 - 1, 18, width + 2, look["paper"])
        text(tile, t // 2 - 7, (t - width) // 2 + 1, words, look["ink"], 2)
    return tiles


def paste_tiles(canvas: np.ndarray, tiles: np.ndarray, grid: int, gap: int) -> np.ndarray:
    """Draw tiles onto an image in reading order from the top left, ``gap`` pixels apart."""
    t = tiles.shape[1]
    start = (len(canvas) - grid * t - (grid - 1) * gap) // 2
    for k, tile in enumerate(tiles):
        y, x = (start + v * (t + gap) for v in divmod(k, grid))
        canvas[y : y + t, x : x + t] = tile
    return canvas


@cache
def background(grid: int, skin: str, empty: bool) -> np.ndarray:
    """A blank image. If ``empty``, with a grey square in the area of the tiles."""
    look = LOOKS[skin]
    side, t = sizes(grid, look)
    canvas, start = blank(side, side, look["paper"]), (side - grid * t) // 2
    if empty:
        rectangle(canvas, start, start, grid * t, grid * t, look["grey"])
    return canvas


def draw_shuffled(tiles: np.ndarray, meta: dict) -> PILImage.Image:
    return picture(
        paste_tiles(background(meta["grid"], meta["skin"], False).copy(), tiles, meta["grid"], LOOKS[meta["skin"]].line)
    )


def draw_assembled(placed: list[int], tiles: np.ndarray, meta: dict) -> PILImage.Image:
    return picture(
        paste_tiles(
            background(meta["grid"], meta["skin"], True).copy(), tiles[np.array(placed, int) - 1], meta["grid"], 0
        )
    )


def numbers_in(words: str) -> list[int]:
    """The tiles that a text places: its numbers, without the lists after a colon that repeat them."""
    return [int(n) for n in re.findall(r"\b[0-9]{1,3}\b", re.sub(r":[^.]*\.", " ", words.split("\\boxed")[0]))]


class Jigsaw(DrawnTask):
    """Order the tiles of a cut image. Level = tiles per side, 2 to 4.

    ``texture``: the background of the scene, ``bands`` or ``rings``. ``margin``: the fraction (plus a quarter of a
    tile's side) by which every other order must have more differing edge pixels. ``chunk``: minimum and maximum number
    of tiles between two sketches.
    """

    name = "jigsaw"
    version = 1
    trained = (2, 3)
    ood: ClassVar = {"size": {"level": 4}, "skin": {"skin": "other"}, "composition": {"texture": "rings"}}
    swaps = (tuple(str(n) for n in range(1, 17)),)

    def __init__(
        self,
        *,
        texture: str = "bands",
        margin: Annotated[float, Bounds(0, 2)] = 0.05,
        chunk: Interval = (1, 2),
        **options,
    ):
        super().__init__(**options)
        if texture not in TEXTURES:
            raise ValueError(f"unknown texture {texture!r}. Use one of {', '.join(TEXTURES)}.")
        if not set(self.levels) <= {2, 3, 4}:
            raise ValueError(f"The level is the number of tiles per side, 2 to 4; got {self.levels}.")
        self.texture, self.margin, self.chunk = texture, margin, tuple(chunk)

    def targets(self, level: int, stream: Stream) -> list[int]:
        """The scene's tile of each number, in the order of the numbers."""
        while (order := stream.shuffle(range(level * level))) == sorted(order):
            pass
        return order

    def draw(self, level: int, targets: list[int], stream: Stream) -> dict:
        return {"scene": stream.below(2**53), "texture": self.texture, "grid": level, "order": targets}

    def canon(self, puzzle: dict) -> str:
        return canon("jigsaw/1", puzzle)

    def verify(self, puzzle: dict, targets: list[int]) -> None:
        tiles = tiles_of(scene(puzzle["scene"], puzzle["texture"]), puzzle["grid"])
        if not is_unique(tiles, puzzle["grid"], self.margin):
            raise Rejected("another order fits about as well")

    def build(self, puzzle: dict, level: int, index: int) -> Item:
        stream = self.stream(level, index, "text")
        gold = [puzzle["order"].index(k) + 1 for k in range(level * level)]
        meta = {**puzzle, "skin": self.skin, "checker": self.name, "gold": gold}
        tiles, question, steps, done = numbered_tiles(meta), stream.choice(QUESTIONS), [], 0
        while done < len(gold):
            size = stream.between(*self.chunk)
            sentence = stream.choice(PLACES).format(tiles=" ".join(map(str, gold[done : done + size])))
            done = min(done + size, len(gold))
            if stream.unit() >= self.omit_state_p:
                sentence = f"{sentence} {stream.choice(CLAUSES).format(all=' '.join(map(str, gold[:done])))}"
            state = {"placed": gold[:done], "places": len(gold)}
            steps.append(Step(sentence, draw_assembled(gold[:done], tiles, meta), state))
        return self.make_item(
            level, index, puzzle, [draw_shuffled(tiles, meta)], question, steps, ",".join(map(str, gold)), meta
        )

    def render_state(self, item: Item, state: dict) -> PILImage.Image:
        return draw_assembled(state["placed"], numbered_tiles(item.meta), item.meta)

    def state_sentence(self, state: dict, stream: Stream) -> str:
        return stream.choice(STATES).format(
            all=" ".join(map(str, state["placed"])) or "none", rest=state["places"] - len(state["placed"])
        )

    def in_words(self, item: Item) -> str:
        """The colors along each tile's edges, run-length encoded."""

        def run(edge: np.ndarray) -> str:
            return " ".join(f"{NAMES[colour]} {len(list(same))}" for colour, same in groupby(edge.tolist()))

        tiles = tiles_of(scene(item.meta["scene"], item.meta["texture"]), item.meta["grid"])[item.meta["order"]]
        edges = [
            f"Tile {k + 1}: top {run(t[0])}; right {run(t[:, -1])}; bottom {run(t[-1])}; left {run(t[:, 0])}."
            for k, t in enumerate(tiles)
        ]
        return "\n".join(
            [
                f"{len(tiles)} tiles, {item.meta['grid']} a row; edges from left to right and from top to "
                "bottom, each colour with its pixels.",
                *edges,
            ]
        )

    def parse_sketch(self, image: PILImage.Image, meta: dict) -> Parsed:
        grid, look, faults = meta["grid"], LOOKS[meta["skin"]], []
        side, t = sizes(grid, look)
        canvas, start = pixels(image, side, side).astype(np.int16), (side - grid * t) // 2
        known = np.concatenate([np.full((1, t, t, 3), look["grey"], np.uint8), numbered_tiles(meta)]).astype(np.int16)
        read, confidence = [], 1.0
        for place in tiles_of(canvas[start : start + grid * t, start : start + grid * t], grid):
            off = np.abs(known - place).mean((1, 2, 3))
            best, second = np.sort(off)[:2]
            if best > FAR:
                return Parsed(None, 0.0, ("a place shows neither a tile nor grey",))
            read.append(int(off.argmin()))
            confidence = min(confidence, float(1 - best / max(second, 1e-6)))
        placed = [n for n in read if n]
        if read != placed + [0] * (len(read) - len(placed)):
            faults.append("a gap before a tile")
        if len(set(placed)) < len(placed):
            faults.append("a tile lies twice")
        rim = np.ones((side, side), bool)
        rim[start : start + grid * t, start : start + grid * t] = False
        if np.abs(canvas - np.array(look["paper"], np.int16))[rim].mean() > FAR:
            faults.append("no rim of paper")
        return Parsed({"placed": placed, "places": grid * grid}, confidence, tuple(faults))

    def state_said(self, item: Item, said: list[str]) -> dict:
        return {"placed": [n for words in said for n in numbers_in(words)], "places": len(item.meta["gold"])}

    def legal(self, item: Item, before: dict | None, said: str, after: dict) -> bool:
        added = numbers_in(said)
        return before is not None and bool(added) and before["placed"] + added == after["placed"]

    def shown(self, item: Item) -> dict:
        """The state without placed tiles."""
        return {"placed": [], "places": len(item.meta["gold"])}

    def follows(self, donor: Item, before: str, after: list[str]) -> float:
        """The fraction of the donor's places that are correct, from the tiles named before and after its sketch."""
        placed = [n for words in (before, *after) for n in numbers_in(words)]
        return self.check(f"\\boxed{{{','.join(map(str, placed))}}}", donor.meta).partial

    def wrong(self, item: Item) -> list[str]:
        gold = item.answer.split(",")
        swapped = [[*gold[:k], gold[k + 1], gold[k], *gold[k + 2 :]] for k in range(len(gold) - 1)]
        return [",".join(order) for order in (*swapped, gold[:-1], [*gold, "1"], gold[::-1])]

    def check(self, text: str, meta: dict) -> Check:
        """The answer is the numbers in reading order, separated by commas or spaces. ``partial`` is the fraction of
        correct places."""
        content, gold = boxed(text) or "", meta["gold"]
        answered = re.findall(r"[0-9]+", content)
        if not answered or not re.fullmatch(r"[0-9,;\s]*", content):
            return Check(False, 0.0, "no_answer")
        right = sum(number == str(tile) for number, tile in zip(answered, gold, strict=False))
        ok = right == len(gold) == len(answered)
        return Check(ok, right / max(len(gold), len(answered)), f"{right} of {len(gold)}", answered)

    def score(self, text: str, meta: dict) -> dict[str, float]:
        result = self.check(text, meta)
        return {"accuracy": float(result.ok), "in_place": result.partial}
