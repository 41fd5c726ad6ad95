"""The 3 x 3 sliding puzzle: find the tiles that slide into the gap, in order, to turn one board into another. A sketch
shows the board after every one to three moves, except the goal board, which the second image shows.

A board is a list of nine numbers in row-major order, with 0 for the gap. Distances come from one table per gap cell of
the goal board, computed in about 0.1 s on first use. 181,440 boards, half of all, are reachable, in at most 31 moves.
"""

from __future__ import annotations

import re
from functools import cache
from math import factorial
from typing import ClassVar

import numpy as np
from PIL import Image as PILImage

from . import canvas
from .canvas import LOOKS
from .checkers import Check, boxed
from .drawn import PlannedTask
from .item import Item, Parsed, Rejected, Step
from .stream import Stream, canon

Board = list[int]

BANDS = {1: (1, 5), 2: (6, 10), 3: (11, 15), 4: (16, 20), 5: (21, 25), 6: (26, 31)}  # moves of a shortest plan
BESIDE = [
    [r * 3 + c for r, c in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)) if 0 <= r < 3 and 0 <= c < 3]
    for y in range(3)
    for x in range(3)
]
TURNS = [
    [int(cell) for cell in np.rot90(grid, k).ravel()]  # the eight symmetries of a square
    for grid in (np.arange(9).reshape(3, 3), np.arange(9).reshape(3, 3).T)
    for k in range(4)
]
CELLS = ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right")
FAR = 40  # largest mean difference between a cell and the nearest tile

QUESTIONS = (
    "Slide tiles into the gap until the first board looks like the second. Which tiles, in order?",
    "Which tiles slide, one after another, to turn the first board into the second?",
    "Solve the sliding puzzle: the second picture shows how the tiles of the first should lie.",
    "Name the tiles to slide, in order, so that the first board becomes the second. Use as few moves as you can.",
    "Plan the slides that lead from the first board to the second.",
)
MOVES = ("Slide {moves}.", "Move {moves}.", "Push {moves}.", "Shift {moves}.", "Then {moves}.", "Next {moves}.")
CLAUSES = (
    "The gap is now {cell}.",
    "This leaves the gap {cell}.",
    "Now the gap lies {cell}.",
    "The empty cell: {cell}.",
    "Empty now: {cell}.",
)
STATES = (
    "Board: {board}.",
    "The board: {board}.",
    "Now the board is {board}.",
    "Tiles: {board}.",
    "The tiles lie {board}.",
)
_SAID = re.compile(r"\b(?:Slide|Move|Push|Shift|Then|Next)((?: [1-8])+)\b", re.ASCII)
_PLAN = re.compile(r"[1-8](?:[,\s]+[1-8])*", re.ASCII)


# -- the rules ---------------------------------------------------------------------------------------------------------
def slide_tile(board: Board, tile: int) -> Board | None:
    """The board after a tile slides into the gap. None if the tile is not adjacent to the gap."""
    gap, spot = board.index(0), board.index(tile)
    if spot not in BESIDE[gap]:
        return None
    result = list(board)
    result[gap], result[spot] = tile, 0
    return result


def walk(board: Board, tiles: list[int]) -> Board | None:
    """The board after all moves. None if one of them is not legal."""
    for tile in tiles:
        after = slide_tile(board, tile)
        if after is None:
            return None
        board = after
    return board


def ranks(orders: np.ndarray) -> np.ndarray:
    """(9, N) permutations of 0 to 8 in columns -> (N,) their lexicographic ranks."""
    return sum(
        (orders[i] > orders[i + 1 :]).sum(0, dtype=np.uint8).astype(np.int32) * factorial(8 - i) for i in range(8)
    )


@cache
def table(gap: int) -> np.ndarray:
    """(9!,) int8: the distance in moves of each board, by rank, from the sorted board, where the number ``gap`` is the
    gap; -1 if the sorted board is unreachable."""
    far, kept = np.full(factorial(9), -1, np.int8), np.zeros(factorial(9), np.int32)
    edge, length = np.arange(9, dtype=np.uint8)[:, None], 0
    far[0] = 0
    while edge.size:
        length += 1
        where, found = (edge == gap).argmax(0), []
        for cell in range(9):
            here = edge[:, where == cell]
            for spot in BESIDE[cell]:
                there = here.copy()
                there[cell], there[spot] = here[spot], gap
                found.append(there)
        edge = np.concatenate(found, 1)
        number = ranks(edge)
        kept[number] = np.arange(len(number))  # keep one of the moves that lead to the same board
        new = (far[number] < 0) & (kept[number] == np.arange(len(number)))
        edge = edge[:, new]
        far[number[new]] = length
    return far


@cache
def layer(gap: int, length: int) -> np.ndarray:
    """The ranks of the boards at distance ``length`` from the sorted board."""
    return np.flatnonzero(table(gap) == length).astype(np.int32)


def distance(board: Board, goal: Board) -> int:
    """The length of a shortest plan, -1 if there is none."""
    order = [goal.index(tile) for tile in board]
    rank = sum(sum(v > w for w in order[i + 1 :]) * factorial(8 - i) for i, v in enumerate(order))
    return int(table(goal.index(0))[rank])


def solve(board: Board, goal: Board) -> list[int]:
    """A shortest plan. Ties are broken in favor of the first tile in row-major order."""
    plan: list[int] = []
    left = distance(board, goal)
    while left > 0:
        left -= 1
        spots = sorted(BESIDE[board.index(0)])
        tile, board = next(
            (board[s], after) for s in spots if (after := slide_tile(board, board[s])) and distance(after, goal) == left
        )
        plan.append(tile)
    return plan


class Slide(PlannedTask):
    """Solve a 3 x 3 sliding puzzle. Level 1 takes 1 to 5 moves; each further level up to 6 takes 5 more (6: 26 to 31).

    The goal board is sampled too, so a model cannot memorize one goal. ``chunk``: minimum and maximum number of moves
    between two sketches.
    """

    name = "slide"
    trained = (1, 2, 3, 4)
    ood: ClassVar = {"size": {"level": (5, 6)}, "skin": {"skin": "other"}, "composition": {"level": 4, "chunk": (4, 4)}}
    swaps = (tuple("12345678"),)
    bands = BANDS
    solve = staticmethod(solve)

    # -- items ---------------------------------------------------------------------------------------------------------
    def draw(self, level: int, targets: int, stream: Stream) -> dict:
        goal = stream.shuffle(range(9))
        boards = layer(goal.index(0), targets)
        if not len(boards):
            raise Rejected("no board so far from this cell of the gap")
        rank, rest, start = int(boards[stream.below(len(boards))]), list(range(9)), []
        for i in range(8, -1, -1):
            start.append(goal[rest.pop(rank // factorial(i))])
            rank %= factorial(i)
        return {"start": start, "goal": goal}

    def canon(self, puzzle: dict) -> str:
        """Rotated and mirrored boards are the same puzzle, with the same answer."""
        start, goal = puzzle["start"], puzzle["goal"]
        return canon("slide/1", min([[start[i] for i in turn], [goal[i] for i in turn]] for turn in TURNS))

    def verify(self, puzzle: dict, targets: int) -> None:
        """Nothing to test: ``draw`` samples at the target distance."""

    def build(self, puzzle: dict, level: int, index: int) -> Item:
        start, goal, stream = puzzle["start"], puzzle["goal"], self.stream(level, index, "text")
        question = stream.choice(QUESTIONS)
        plan = solve(start, goal)
        steps, board, done = [], start, 0
        while done < len(plan):
            tiles = plan[done : done + stream.between(*self.chunk)]
            done += len(tiles)
            board, last = walk(board, tiles), done == len(plan)
            assert board is not None  # moves of a plan are legal
            text = stream.choice(MOVES).format(moves=" ".join(map(str, tiles)))
            if stream.unit() >= self.omit_state_p and not last:
                text = f"{text} {stream.choice(CLAUSES).format(cell=CELLS[board.index(0)])}"
            steps.append(Step(text, None if last else draw(board, self.skin), {"board": board}))
        meta = {"start": start, "goal": goal, "optimum": len(plan), "skin": self.skin, "checker": self.name}
        return self.make_item(
            level,
            index,
            puzzle,
            [draw(start, self.skin), draw(goal, self.skin)],
            question,
            steps,
            ",".join(map(str, plan)),
            meta,
        )

    # -- answers -------------------------------------------------------------------------------------------------------
    def check(self, text: str, meta: dict) -> Check:
        """Correct if every move is legal and the last board is the goal. Otherwise ``partial`` is the fraction of the
        distance that legal moves covered."""
        content = boxed(text)
        if content is None or not _PLAN.fullmatch(content.strip()):
            return Check(False, 0.0, "no_plan")
        tiles = [int(tile) for tile in re.findall("[1-8]", content)]
        end = walk(meta["start"], tiles)
        if end is None:
            return Check(False, 0.0, "a move that is not legal", tiles)
        left = distance(end, meta["goal"])
        return Check(left == 0, max(0.0, 1 - left / meta["optimum"]), f"{left} moves short", tiles)

    def score(self, text: str, meta: dict) -> dict[str, float]:
        """``exact``: solved with a shortest plan."""
        result = self.check(text, meta)
        exact = result.ok and len(result.parsed) == meta["optimum"]
        return {"success": float(result.ok), "exact": float(exact), "progress": result.partial}

    def wrong(self, item: Item) -> list[str]:
        goal, plan = item.meta["goal"], item.answer
        further = [f"{plan},{goal[spot]}" for spot in BESIDE[goal.index(0)]]
        stuck = [f"{plan},{tile}" for tile in range(10) if tile not in goal or slide_tile(goal, tile) is None]
        return [*further, stuck[0], stuck[-1], plan[2:], plan[:-2]]

    # -- words ---------------------------------------------------------------------------------------------------------
    def state_sentence(self, state: dict, stream: Stream) -> str:
        return stream.choice(STATES).format(board=in_line(state["board"]))

    def in_words(self, item: Item) -> str:
        """Both boards in row-major order."""
        return f"First board: {in_line(item.meta['start'])}. Second board: {in_line(item.meta['goal'])}."

    def shown(self, item: Item) -> dict:
        return {"board": item.meta["start"]}

    def state_said(self, item: Item, said: list[str]) -> dict:
        board = item.meta["start"]
        for tile in tiles_in(" ".join(said)):
            board = slide_tile(board, tile) or board
        return {"board": board}

    def legal(self, item: Item, before: dict | None, said: str, after: dict) -> bool:
        tiles = tiles_in(said)
        return before is not None and bool(tiles) and walk(before["board"], tiles) == after["board"]

    def follows(self, donor: Item, before: str, after: list[str]) -> float:
        """1 if the tiles named before and after the donor's sketch solve the donor's puzzle."""
        plan = ",".join(map(str, tiles_in(" ".join([before, *after]))))
        return self.score(f"\\boxed{{{plan}}}", donor.meta)["success"]

    # -- pictures ------------------------------------------------------------------------------------------------------
    def render_state(self, item: Item, state: dict) -> PILImage.Image:
        return draw(state["board"], item.meta["skin"])

    def parse_sketch(self, image: PILImage.Image, meta: dict) -> Parsed:
        """Read each cell as the nearest tile. Faults: tiles that are missing or occur twice."""
        known = tiles(meta["skin"])
        side = known.shape[1]
        seen = canvas.pixels(image, 3 * side, 3 * side).astype(np.int16)
        cells = seen.reshape(3, side, 3, side, 3).swapaxes(1, 2).reshape(9, 1, side, side, 3)
        off = np.abs(cells - known).mean((2, 3, 4))
        if off.min(1).max() > FAR:
            return Parsed(None, 0.0, ("cell that shows no tile",))
        board = [int(tile) for tile in off.argmin(1)]
        faults = () if len(set(board)) == 9 else ("tile twice",)
        return Parsed({"board": board}, float(1 - off.min(1).max() / FAR), faults)


# -- text and images ---------------------------------------------------------------------------------------------------
def tiles_in(text: str) -> list[int]:
    """The tiles that a text slides, in the wording of the steps."""
    return [int(tile) for run in _SAID.findall(text) for tile in run.split()]


def in_line(board: Board) -> str:
    return " / ".join(" ".join(str(tile or "_") for tile in board[row : row + 3]) for row in (0, 3, 6))


@cache
def tiles(skin: str) -> np.ndarray:
    """(9, side, side, 3) rendering of the gap and of tiles 1 to 8."""
    look = LOOKS[skin]
    side, scale = look.cell, look.cell // 10
    drawn = [canvas.blank(side, side, look["grey"])]
    for tile in range(1, 9):
        cell = canvas.blank(side, side, look["yellow"])
        canvas.frame(cell, 0, 0, side, side, look.line // 2, look["ink"])
        canvas.text(cell, (side - 7 * scale) // 2, (side - 5 * scale) // 2, str(tile), look["ink"], scale)
        drawn.append(cell)
    return np.stack(drawn)


def draw(board: Board, skin: str) -> PILImage.Image:
    """Render a board as 3 x 3 cells in the size of the style."""
    cells = tiles(skin)[board]
    side = cells.shape[1]
    return canvas.picture(cells.reshape(3, 3, side, side, 3).swapaxes(1, 2).reshape(3 * side, 3 * side, 3))
