"""Plans of moves: simulated on the state of the puzzle. A move that the rules forbid makes the plan wrong."""

from __future__ import annotations

import re
from itertools import chain

from .answers import MAX_MOVES, STEPS, Cell, read_moves, rule

COMPASS = {"north": (1, 0), "south": (-1, 0), "east": (0, 1), "west": (0, -1)}
OPPOSITE = {"up": "down", "down": "up", "left": "right", "right": "left"}


def step(cell: Cell, move: str, by: int = 1) -> Cell:
    return cell[0] + by * STEPS[move][0], cell[1] + by * STEPS[move][1]


def marks(state: str) -> dict[Cell, str]:
    """(row, column) -> sign of a drawing in text."""
    return {(r, c): sign for r, line in enumerate(state.strip("\n").split("\n")) for c, sign in enumerate(line)}


def read_streets(text: str) -> list[tuple[str, int]] | None:
    steps = re.findall(r"\b(north|south|east|west)\s*:\s*(\d{1,6})\b", text.lower())
    return [(direction, int(count)) for direction, count in steps] or None


@rule(read_streets)
def displacement(steps: list[tuple[str, int]], meta: dict) -> bool:
    """Street maps of VSP: ``North: 2, East: 1`` in any order; the sums must be ``meta["north"]`` and ``meta["east"]``."""
    north, east = (sum(COMPASS[direction][axis] * count for direction, count in steps) for axis in (0, 1))
    return (north, east) == (meta["north"], meta["east"])


def read_disks(text: str) -> list[tuple[int, int]] | None:
    pairs = re.findall(r"\(\s*(\d{1,4})\s*[,\s]\s*(\d{1,4})\s*\)", text)
    return [(int(disk), int(peg)) for disk, peg in pairs][:MAX_MOVES] or None


@rule(read_disks)
def hanoi(moves: list[tuple[int, int]], meta: dict) -> bool:
    """Moves ``(disk, peg)``, pegs counted from 1, that move all disks of ``meta["pegs"]`` (bottom first) to the last peg."""
    pegs = [list(peg) for peg in meta["pegs"]]
    for disk, peg in moves:
        source = next((peg for peg in pegs if peg and peg[-1] == disk), None)
        if source is None or not 1 <= peg <= len(pegs) or source is pegs[peg - 1]:
            return False
        target = pegs[peg - 1]
        if target and target[-1] < disk:
            return False
        target.append(source.pop())
    return not any(pegs[:-1])


def read_slides(text: str) -> list[str] | None:
    """Directions, or the numbers of the tiles that slide into the gap."""
    return read_moves(text) or [str(int(n)) for n in re.findall(r"\d{1,4}", text)][:MAX_MOVES] or None


@rule(read_slides)
def sliding(slides: list[str], meta: dict) -> bool:
    """Moves that order ``meta["board"]``, with the gap (0) last. "up" slides the tile below the gap upward, "left" the
    tile on its right to the left, and so on, as the question of MM-HELIX defines. Numbers of tiles are read too."""
    board = {(r, c): tile for r, row in enumerate(meta["board"]) for c, tile in enumerate(row)}
    for slide in slides:
        gap = next(cell for cell, tile in board.items() if tile == 0)
        near = {move: step(gap, OPPOSITE[move]) for move in STEPS}
        tiles = {str(board[cell]): cell for cell in near.values() if cell in board}
        source = near.get(slide) or tiles.get(slide)
        if source not in board:
            return False
        board[gap], board[source] = board[source], 0
    return list(board.values()) == [*range(1, len(board)), 0]


@rule(read_moves)
def maze(moves: list[str], meta: dict) -> bool:
    """From S to E. ``meta["state"]`` draws cells at odd rows and columns and ``+ - |`` for walls between them."""
    drawing = marks(meta["state"])
    cell = next(cell for cell, sign in drawing.items() if sign == "S")
    for move in moves:
        if drawing.get(step(cell, move), "|") in "+-|" or step(cell, move, 2) not in drawing:
            return False
        cell = step(cell, move, 2)
    return drawing[cell] == "E"


@rule(read_moves)
def sokoban(moves: list[str], meta: dict) -> bool:
    """All boxes on targets: ``#`` wall, ``@`` player, ``$`` box, ``.`` target, ``*`` box and ``+`` player on a target."""
    drawing = marks(meta["state"])
    floor = {cell for cell, sign in drawing.items() if sign != "#"}
    boxes = {cell for cell, sign in drawing.items() if sign in "$*"}
    targets = {cell for cell, sign in drawing.items() if sign in ".*+"}
    player = next(cell for cell, sign in drawing.items() if sign in "@+")
    for move in moves:
        player = step(player, move)
        if player in boxes:
            pushed = step(player, move)
            if pushed not in floor or pushed in boxes:
                return False
            boxes = boxes - {player} | {pushed}
        if player not in floor:
            return False
    return boxes == targets


@rule(read_moves)
def nibbles(moves: list[str], meta: dict) -> bool:
    """A snake eats all apples. It grows by one with each, and neither leaves the grid, nor bites itself, nor turns back.

    ``meta["state"]`` has the lines ``Grid: 7x6``, ``Snake: (row,column) ...`` from its head, ``Direction: left`` and
    ``Apples: (row,column) ...``.
    """
    fields = dict(re.findall(r"^\s*(\w+):\s*(.*)$", meta["state"], re.MULTILINE))
    rows, columns = map(int, fields["Grid"].lower().split("x"))
    snake, apples = (
        [(int(r), int(c)) for r, c in re.findall(r"\((\d+),\s*(\d+)\)", fields[name])] for name in ("Snake", "Apples")
    )
    direction = fields["Direction"].strip().lower()
    for move in moves:
        head = step(snake[0], move)
        is_inside = 0 <= head[0] < rows and 0 <= head[1] < columns
        if move == OPPOSITE[direction] or not is_inside or head in snake:
            return False
        direction, snake = move, [head, *snake]
        if head in apples:
            apples.remove(head)
        else:
            snake.pop()
    return not apples


def is_board(rows: list[list[int]]) -> bool:
    """Whether rows of equal length have the numbers from 0, each once."""
    return len(set(map(len, rows))) == 1 and sorted(chain(*rows)) == [*range(len(rows) * len(rows[0]))]
