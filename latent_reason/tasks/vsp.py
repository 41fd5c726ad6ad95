"""The VSP maze benchmark (arXiv 2407.01863) as items, and two baselines for any score on it.

A fixed move string solves about 30 % of the benchmark, and a plan that uses start and gift but ignores holes 66 %. So
report ``constant_plan`` and ``hole_blind`` together with every success rate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from . import frozenlake_board as board
from .frozenlake import FrozenLakePlan, GridTask, PlanCheck
from .item import Item

LARGEST = 4096  # largest side of an image in pixels
MAIN = ("", "task-main", "maze/task-main", "VSP-main/maze/task-main")
TASK4 = ("", "task4", "maze/task4", "VSP-main/maze/task4")


def plan_items(folder: str | Path, levels: Iterable[int] = range(3, 9)) -> Iterator[Item]:
    """The main task: level = board size. ``folder`` is task-main or a folder above it."""
    for n in levels:
        task = FrozenLakePlan(split="test", level=n)
        for i, place in _numbered(folder, MAIN, f"level{n}"):
            yield _item(task, {"map": _rows(place, i)}, n, i, place, f"vsp-main-L{n}-{i:04d}")


def check_items(folder: str | Path, levels: Iterable[int] = (1, 3, 5, 7, 9)) -> Iterator[Item]:
    """Task 4: level = number of moves."""
    for count in levels:
        for i, place in _numbered(folder, TASK4, f"level_step{count}"):
            rows, moves = _rows(place, i), _read(place / "question" / f"{i}.txt").strip()
            task = PlanCheck(split="test", level=count, n=len(rows))
            item = _item(task, {"map": rows, "moves": moves}, count, i, place, f"vsp-task4-L{count}-{i:04d}")
            truth = _read(place / "answer" / f"{i}.txt").strip()
            if truth != item.answer[0]:
                raise ValueError(f"{place / 'answer'}/{i}.txt says {truth}, the board says {item.answer}")
            yield item


def _item(task: GridTask, puzzle: dict, level: int, index: int, place: Path, name: str) -> Item:
    path = place / "img" / f"{index}.png"
    if not path.is_file():
        raise _missing(path)
    with Image.open(path, formats=("PNG", "JPEG")) as image:
        if max(image.size) > LARGEST:
            raise ValueError(
                f"{path} has {image.width} x {image.height} pixels; the limit is {LARGEST} per side. Copy it again."
            )
        return replace(task.build(puzzle, level, index), id=name, images=[image.convert("RGB")])


def _numbered(folder: str | Path, roots: Sequence[str], level: str) -> list[tuple[int, Path]]:
    """(number, folder) of each item of a level, in order."""
    for root in roots:
        place = Path(folder) / root / "maps" / level
        if place.is_dir():
            numbers = sorted(int(p.stem) for p in (place / "pure_text").glob("*.txt") if p.stem.isdecimal())
            if not numbers:
                raise _missing(place / "pure_text" / "0.txt")
            return [(i, place) for i in numbers]
    raise _missing(Path(folder) / "maps" / level)


def _rows(place: Path, index: int) -> tuple[str, ...]:
    return board.from_words(_read(place / "pure_text" / f"{index}.txt"))


def _read(path: Path) -> str:
    if not path.is_file():
        raise _missing(path)
    return path.read_text()


def _missing(path: Path) -> FileNotFoundError:
    return FileNotFoundError(
        f"{path} is missing; expected the VSP folder maze/task-main with maps/level{{3..8}}/{{img,pure_text}}/{{i}}.* "
        f"and for task 4 maze/task4 with maps/level_step{{1,3,5,7,9}}/{{img,pure_text,question,answer}}/{{i}}.*"
    )


def hole_blind(item: Item) -> str:
    """The plan from start to gift that ignores holes: rows first, then columns."""
    (r, c), (y, x) = board.find(item.meta["map"], "S"), board.find(item.meta["map"], "G")
    return ",".join("D" * (y - r) + "U" * (r - y) + "R" * (x - c) + "L" * (c - x))


def constant_answer(items: Sequence[Item]) -> tuple[str, float]:
    """The most frequent answer and its fraction."""
    ((answer, count),) = Counter(item.answer for item in items).most_common(1)
    return answer, count / len(items)


def constant_plan(items: Sequence[Item], checker: str = "vsp", width: int = 64, longest: int = 40) -> tuple[str, float]:
    """The best constant plan found by beam search and its success rate, a lower bound for the best constant plan.

    ``checker``: "vsp" (the first arrival counts), "mirage" (the last cell counts) or "exact" (a shortest plan).
    """
    table, spots, goals = _moves_table(items, checker)
    dead, every = table.shape[1] - 1, np.arange(len(items))
    beam, plans = spots[None], [""]
    best = ("", -1.0)
    for _ in range(longest):
        grown = table[every, beam].transpose(0, 2, 1).reshape(-1, len(items))  # each plan extended by each move
        names = [plan + move for plan in plans for move in board.MOVES]
        wins = (grown == goals).mean(1)
        top = int(wins.argmax())
        if wins[top] > best[1]:
            best = (names[top], float(wins[top]))
        worth = wins + 0.1 * (grown != dead).mean(1)  # items that have not failed may still succeed
        kept: dict[bytes, int] = {}
        for i in np.argsort(-worth, kind="stable"):
            kept.setdefault(grown[i].tobytes(), int(i))
            if len(kept) == width:
                break
        beam, plans = grown[list(kept.values())], [names[i] for i in kept.values()]
    return ",".join(best[0]), best[1]


def _moves_table(items: Sequence[Item], checker: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(next cell of each item, cell and move; start cells; goal cells). The last cell stands for failure."""
    boards = [item.meta["map"] for item in items]
    dead = max(len(rows) for rows in boards) ** 2
    table = np.full((len(items), dead + 1, len(board.MOVES)), dead, np.uint8)
    for i, rows in enumerate(boards):
        n, far = len(rows), board.distances(rows)
        for r, c in ((r, c) for r in range(n) for c in range(n)):
            for k, move in enumerate(board.MOVES):
                to = board.step(rows, (r, c), move)
                if rows[r][c] == "G" and checker != "mirage":
                    to = (r, c)
                elif rows[to[0]][to[1]] == "H" or (checker == "exact" and far.get(to, dead) >= far.get((r, c), 0)):
                    continue
                table[i, r * n + c, k] = to[0] * n + to[1]
    spots, goals = (
        np.array([r * len(rows) + c for rows in boards for r, c in [board.find(rows, letter)]], np.uint8)
        for letter in "SG"
    )
    return table, spots, goals
