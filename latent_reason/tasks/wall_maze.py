"""Mazes with walls (``wall_maze``), after the mazes of Latent Sketchpad: find the actions from the arrow to the red
disc.

A maze is JSON: ``right[r][c]`` is "1" if cell (r, c) is open to the east, ``down[r][c]`` if it is open to the south;
the other keys are ``start``, ``heading`` (N, E, S, W; north is up) and ``goal``. A state is ``{"cells", "heading"}``:
the path from the start without loops (entering one of its cells again removes all later ones) and the direction of the
arrow.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from PIL import Image as PILImage

from . import canvas as c
from .base import Item, Parsed, Rejected, Step
from .checkers import Check, boxed
from .drawn import DrawnTask
from .stream import Stream
from .stream import canon as named

Cell = tuple[int, int]

SIZES = {1: (3, 3), 2: (3, 4), 3: (3, 5), 4: (4, 5), 5: (5, 5), 6: (6, 6), 7: (7, 7), 8: (8, 8)}
WAYS = {"N": (-1, 0), "E": (0, 1), "S": (1, 0), "W": (0, -1)}
COMPASS = {"N": "north", "E": "east", "S": "south", "W": "west"}
DARTS = {"N": "U", "E": "R", "S": "D", "W": "L"}
TURNS = {"left": -1, "right": 1}
LETTERS = {"U": "N", "R": "E", "D": "S", "L": "W"}
ACTIONS = {"turn": ("forward", *TURNS), "junction": ("forward", *TURNS), "absolute": tuple(LETTERS)}
MOST_ACTIONS = 1000
QUESTIONS = (
    "Lead the green arrow to the red disc.",
    "How does the arrow reach the red disc?",
    "Find the way from the green arrow to the disc.",
    "Which actions bring the arrow to the disc?",
    "Plan the way through the maze to the red disc.",
    "Guide the arrow through the maze to the disc.",
)
RULES = {
    "turn": "Actions: forward (one cell), left, right (turn in place).",
    "junction": "Actions: forward (up to a side passage, a wall ahead or the disc), left, right (turn in place).",
    "absolute": "Actions: U, R, D, L (one cell each).",
}
CHUNKS = ("Go {}.", "Take {}.", "Then {}.", "Next {}.", "Do {}.", "The way is {}.")
PLACES = (
    "Now at {cell}, facing {way}.",
    "The arrow is at {cell} and faces {way}.",
    "At {cell}, facing {way}.",
    "That is {cell}, with {way} ahead.",
    "Here is {cell}; the arrow faces {way}.",
)
STATES = (
    "The line runs {cells}; the arrow faces {way}.",
    "Path: {cells}. The arrow faces {way}.",
    "A line through {cells} ends in an arrow to the {way}.",
    "So far {cells}, facing {way}.",
    "The cells passed are {cells}; now facing {way}.",
)


def is_open(maze: dict, cell: Cell, way: str) -> bool:
    row, col = cell
    if way in "EW":
        col -= way == "W"
        return 0 <= col < len(maze["right"][0]) and maze["right"][row][col] == "1"
    row -= way == "N"
    return 0 <= row < len(maze["down"]) and maze["down"][row][col] == "1"


def beside(cell: Cell, way: str) -> Cell:
    return cell[0] + WAYS[way][0], cell[1] + WAYS[way][1]


def advance(maze: dict, cell: Cell, heading: str, action: str, kind: str) -> tuple[list[Cell], str] | None:
    """The cells that an action enters and the direction after it. None if a wall blocks it."""
    if action in TURNS:
        return [], "NESW"[("NESW".index(heading) + TURNS[action]) % 4]
    heading, cells = LETTERS.get(action, heading), []
    sides = "EW" if heading in "NS" else "NS"
    while is_open(maze, cell, heading):
        cell = beside(cell, heading)
        cells.append(cell)
        if kind != "junction" or list(cell) == maze["goal"] or any(is_open(maze, cell, side) for side in sides):
            break
    return (cells, heading) if cells else None


def walk(maze: dict, actions: list[str], kind: str, state: dict | None = None) -> tuple[dict, int]:
    """(state after the actions, number of blocked actions). Blocked actions have no effect."""
    state = state or start(maze)
    cells, heading, hits = [tuple(cell) for cell in state["cells"]], state["heading"], 0
    for action in actions:
        done = advance(maze, cells[-1], heading, action, kind)
        if done is None:
            hits += 1
            continue
        heading = done[1]
        for cell in done[0]:
            cells = [*cells[: cells.index(cell)], cell] if cell in cells else [*cells, cell]
    return {"cells": [list(cell) for cell in cells], "heading": heading}, hits


def start(maze: dict) -> dict:
    return {"cells": [maze["start"]], "heading": maze["heading"]}


def solve(maze: dict, kind: str) -> tuple[list[str], int]:
    """(a shortest plan, number of shortest plans). Ties are broken by the order of ``ACTIONS``."""
    goal, first = tuple(maze["goal"]), (tuple(maze["start"]), maze["heading"])
    plans, layer = {first: []}, {first: 1}
    while layer:
        if found := [node for node in layer if node[0] == goal]:
            return plans[found[0]], sum(layer[node] for node in found)
        after: dict[Any, int] = {}
        for node, ways in layer.items():
            for action in ACTIONS[kind]:
                done = advance(maze, *node, action, kind)
                if done is None:
                    continue
                new = (done[0][-1] if done[0] else node[0], done[1])
                if new not in plans:
                    plans[new] = [*plans[node], action]
                    after[new] = ways
                elif new in after:
                    after[new] += ways
        layer = after
    raise ValueError("The goal is unreachable.")


def distances(maze: dict, source: Cell) -> dict[Cell, int]:
    """The distance in passages from ``source`` to every cell."""
    far, queue = {source: 0}, [source]
    for cell in queue:
        for way in WAYS:
            if is_open(maze, cell, way) and (there := beside(cell, way)) not in far:
                far[there] = far[cell] + 1
                queue.append(there)
    return far


def passages(height: int, width: int, loops: int, stream: Stream) -> dict:
    """A random depth-first spanning tree plus ``loops`` further passages."""
    right, down = [["0"] * (width - 1) for _ in range(height)], [["0"] * width for _ in range(height - 1)]

    def carve(cell: Cell, there: Cell) -> None:
        (row, col), (other, _) = min(cell, there), max(cell, there)
        (right if row == other else down)[row][col] = "1"

    stack = [(stream.below(height), stream.below(width))]
    seen = set(stack)
    while stack:
        near = [
            there
            for way in WAYS
            if (there := beside(stack[-1], way)) not in seen and 0 <= there[0] < height and 0 <= there[1] < width
        ]
        if not near:
            stack.pop()
            continue
        there = stream.choice(near)
        carve(stack[-1], there)
        seen.add(there)
        stack.append(there)
    if loops:
        closed = [
            (rows, r, k) for rows in (right, down) for r, row in enumerate(rows) for k, v in enumerate(row) if v == "0"
        ]
        for rows, r, k in stream.shuffle(closed)[:loops]:
            rows[r][k] = "1"
    return {"right": ["".join(row) for row in right], "down": ["".join(row) for row in down]}


def size(maze: dict) -> Cell:
    return len(maze["right"]), len(maze["down"][0])


def edges(maze: dict) -> list[tuple[Cell, str]]:
    """All borders between two cells, as (cell, direction E or S)."""
    height, width = size(maze)
    return [((r, k), "E") for r in range(height) for k in range(width - 1)] + [
        ((r, k), "S") for r in range(height - 1) for k in range(width)
    ]


def render(maze: dict, look: c.Look, state: dict | None = None) -> PILImage.Image:
    """Render the maze. With a state, also the path so far and a blue arrow at its end."""
    (height, width), side, line = size(maze), look.cell, look.line
    sheet = c.blank(height * side, width * side, look["paper"])

    def middle(cell) -> Cell:
        return cell[0] * side + side // 2, cell[1] * side + side // 2

    c.disc(sheet, *middle(maze["goal"]), arrow(look), look["red"])
    if state:
        thick = line + 2
        for (y, x), (v, u) in pairwise(middle(cell) for cell in state["cells"]):
            c.rectangle(
                sheet,
                min(y, v) - thick // 2,
                min(x, u) - thick // 2,
                abs(v - y) + thick,
                abs(u - x) + thick,
                look["pink"],
            )
    c.triangle(sheet, *middle(maze["start"]), arrow(look), DARTS[maze["heading"]], look["green"])
    if state:
        c.triangle(sheet, *middle(state["cells"][-1]), arrow(look), DARTS[state["heading"]], look["blue"])
    for (row, col), way in edges(maze):
        if not is_open(maze, (row, col), way):
            y, x = (row + (way == "S")) * side - line // 2, (col + (way == "E")) * side - line // 2
            c.rectangle(
                sheet, y, x, line if way == "S" else side + line, line if way == "E" else side + line, look["ink"]
            )
    c.frame(sheet, 0, 0, *sheet.shape[:2], line, look["ink"])
    return c.picture(sheet)


def arrow(look: c.Look) -> int:
    """Half the side of an arrow in pixels."""
    return look.cell * 9 // 32


def dart(look: c.Look, heading: str) -> np.ndarray:
    """Boolean mask of the pixels of a cell that its arrow covers."""
    cell = c.blank(look.cell, look.cell, "paper")
    c.triangle(cell, look.cell // 2, look.cell // 2, arrow(look), DARTS[heading], "ink")
    return cell[:, :, 0] == 0


def parse(image: PILImage.Image, maze: dict, look: c.Look) -> Parsed:
    (height, width), side = size(maze), look.cell
    sheet = c.pixels(image, height * side, width * side)
    found = c.labels(sheet, [look[name] for name in ("blue", "green", "red")])
    cells = found.reshape(height, side, width, side).swapaxes(1, 2)

    def where(label: int) -> list[Cell]:
        """The cells with enough pixels of a color, in decreasing order."""
        count = (cells == label).sum((2, 3))
        return sorted(map(tuple, np.argwhere(count > dart(look, "N").sum() / 4).tolist()), key=lambda x: -count[x])

    darts = where(0)
    if len(darts) != 1:
        return Parsed(None, 0.0, (f"{len(darts)} blue arrows",))
    at = darts[0]
    blue = cells[at] == 0
    fits = {way: float((blue & dart(look, way)).sum() / (blue | dart(look, way)).sum()) for way in WAYS}
    heading = max(fits, key=fits.get)
    faults = []
    if fits[heading] < 0.5:
        faults.append("the blue arrow has no direction")
    for label, thing, home in ((1, "start", tuple(maze["start"])), (2, "goal", tuple(maze["goal"]))):
        if [cell for cell in where(label) if cell != at] != [home] * (home != at):
            faults.append(f"the {thing} is not where it was")

    table = np.array([look[name] for name in ("ink", "paper", "pink")], float)
    wide, changed, lit = look.line // 2, 0, []
    for (row, col), way in edges(maze):
        y, x = row * side + side // 2 + (way == "S") * side // 2, col * side + side // 2 + (way == "E") * side // 2
        colour = sheet[y - wide : y + wide, x - wide : x + wide].mean((0, 1))
        kind = int(np.abs(table - colour).sum(1).argmin())
        changed += (kind != 0) != is_open(maze, (row, col), way)
        if kind == 2:
            lit.append({(row, col), beside((row, col), way)})
    if changed:
        faults.append(f"{changed} walls changed")
    path = [tuple(maze["start"])]
    while ahead := [edge for edge in lit if path[-1] in edge]:
        lit = [edge for edge in lit if edge not in ahead]
        path.append(next(iter(ahead[0] - {path[-1]})))
        if len(ahead) > 1:
            return Parsed(None, fits[heading], (*faults, "the path forks"))
    if lit or path[-1] != at:
        return Parsed(None, fits[heading], (*faults, "the path does not lead from the start to the arrow"))
    return Parsed({"cells": [list(cell) for cell in path], "heading": heading}, fits[heading], tuple(faults))


def plan_in(text: str, kind: str) -> list[str] | None:
    """The actions of the boxed plan. None if it is missing, too long or contains anything else."""
    words = [w for w in re.findall(r"[^,;\s]+", boxed(text) or "") if w.lower() not in ("go", "turn")]
    plan = [w.upper() if kind == "absolute" else w.lower() for w in words]
    return plan if 0 < len(plan) <= MOST_ACTIONS and set(plan) <= set(ACTIONS[kind]) else None


def cell_words(cell) -> str:
    return f"row {cell[0] + 1} column {cell[1] + 1}"


class WallMaze(DrawnTask):
    """Find the actions from the arrow to the disc. Level = maze size (``SIZES``).

    ``actions``: "turn" (forward is one cell; left and right turn), "junction" (forward continues to the next junction)
    or "absolute" (U, R, D, L). ``loops``: passages beyond a spanning tree. ``chunk``: minimum and maximum number of
    actions between two sketches. The distance to the goal is sampled uniformly from 3 to a maximum for the size.
    """

    name = "wall_maze"
    redraws = True
    trained = (1, 2, 3, 4, 5)
    ood: ClassVar = {"size": {"level": (6, 8)}, "skin": {"skin": "other"}, "composition": {"loops": 3}}

    def __init__(self, *, actions: str = "turn", loops: int = 0, chunk: tuple[int, int] = (4, 6), **options):
        super().__init__(**options)
        if not set(self.levels) <= set(SIZES):
            raise ValueError(f"The level is the size of the maze, 1 (3x3) to 8 (8x8); got {self.levels}.")
        if actions not in ACTIONS:
            raise ValueError(f"actions is one of {', '.join(ACTIONS)}; got {actions!r}")
        most = min((h - 1) * (w - 1) for h, w in (SIZES[level] for level in self.levels))
        if not 0 <= loops <= most:
            raise ValueError(
                f"loops is 0 to {most}, the number of walls left by a spanning tree at this level; got {loops}."
            )
        self.actions, self.loops, self.chunk = actions, loops, chunk
        self.swaps = (ACTIONS[actions],)

    def targets(self, level: int, stream: Stream) -> int:
        height, width = SIZES[level]
        return stream.between(3, height + width - 2 if self.loops else height * width // 2 + 2)

    def draw(self, level: int, targets: int, stream: Stream) -> dict:
        height, width = SIZES[level]
        maze, home = passages(height, width, self.loops, stream), (stream.below(height), stream.below(width))
        goals = [cell for cell, far in distances(maze, home).items() if far == targets]
        if not goals:
            raise Rejected("no cell is as far")
        return {**maze, "start": list(home), "heading": stream.choice("NESW"), "goal": list(stream.choice(goals))}

    def canon(self, puzzle: dict) -> str:
        return named("wall_maze/1", {key: value for key, value in puzzle.items() if key != "heading"})

    def verify(self, puzzle: dict, targets: int) -> None:
        if self.actions == "junction" and len(solve(puzzle, self.actions)[0]) < 3:
            raise Rejected("too few actions")

    def build(self, puzzle: dict, level: int, index: int) -> Item:
        stream, kind = self.stream(level, index, "text"), self.actions
        plan, ways = solve(puzzle, kind)
        question = f"{stream.choice(QUESTIONS)} {RULES[kind]}"
        steps, state, rest = [], start(puzzle), plan
        while rest:
            count = stream.between(*self.chunk)
            if not steps and count >= len(plan):  # a short plan has one sketch
                count = len(plan) - 2
            said, rest = rest[:count], rest[count:]
            state, _ = walk(puzzle, said, kind, state)
            text = stream.choice(CHUNKS).format(", ".join(said))
            if rest and stream.unit() >= self.omit_state_p:
                place = {"cell": cell_words(state["cells"][-1]), "way": COMPASS[state["heading"]]}
                text = f"{text} {stream.choice(PLACES).format(**place)}"
            steps.append(Step(text, render(puzzle, self.look, state) if rest else None, state))
        meta = {
            "maze": puzzle,
            "actions": kind,
            "skin": self.skin,
            "checker": self.name,
            "plan": plan,
            "optimum": len(plan),
            "solutions": ways,
        }
        return self.make_item(
            level,
            index,
            puzzle,
            [render(puzzle, self.look)],
            question,
            steps,
            ",".join(plan),
            self.name,
            meta,
        )

    def state_sentence(self, state: dict, stream: Stream) -> str:
        cells = " ".join(f"({row + 1},{col + 1})" for row, col in state["cells"])
        return stream.choice(STATES).format(cells=cells, way=COMPASS[state["heading"]])

    def in_words(self, item: Item) -> str:
        maze = item.meta["maze"]
        pairs = [(cell, beside(cell, way)) for cell, way in edges(maze) if is_open(maze, cell, way)]
        opened = ", ".join("-".join(f"({r + 1},{k + 1})" for r, k in pair) for pair in pairs)
        return (
            f"The maze has {size(maze)[0]} rows and {size(maze)[1]} columns; north is up. The green arrow is at "
            f"{cell_words(maze['start'])} and faces {COMPASS[maze['heading']]}. The red disc is at "
            f"{cell_words(maze['goal'])}. Open between (row,column): {opened}."
        )

    def render_state(self, item: Item, state: dict) -> PILImage.Image:
        return render(item.meta["maze"], c.LOOKS[item.meta["skin"]], state)

    def parse_sketch(self, image: PILImage.Image, meta: dict) -> Parsed:
        return parse(image, meta["maze"], c.LOOKS[meta["skin"]])

    def wrong(self, item: Item) -> list[str]:
        plan = item.meta["plan"]
        near = [plan[:-1], plan[:-2], [*plan, "jump"]]
        near += [[*plan[:i], other, *plan[i + 1 :]] for i in range(len(plan)) for other in ACTIONS[self.actions]]
        return [said for said in map(",".join, near) if not self.check(f"\\boxed{{{said}}}", item.meta).ok]

    def check(self, text: str, meta: dict) -> Check:
        """Correct if the walk ends on the goal and no action is blocked. Otherwise ``partial`` is the fraction of the
        gold plan in the leading actions."""
        plan = plan_in(text, meta["actions"])
        if plan is None:
            return Check(False, 0.0, "no_plan")
        state, hits = walk(meta["maze"], plan, meta["actions"])
        ok = not hits and state["cells"][-1] == meta["maze"]["goal"]
        reason = "right" if ok else "met a wall" if hits else "not at the goal"
        return Check(ok, 1.0 if ok else self.leading(plan, meta) / (meta["optimum"] + 1), reason, plan)

    def leading(self, plan: list[str], meta: dict) -> int:
        """The number of leading actions that agree with the gold plan."""
        differ = (i for i, (action, gold) in enumerate(zip(plan, meta["plan"], strict=False)) if action != gold)
        return next(differ, min(len(plan), len(meta["plan"])))

    def score(self, text: str, meta: dict) -> dict[str, float]:
        """``success``: any plan to the goal. ``exact``: a shortest plan. ``label``: starts with the whole gold plan (the
        rule of Latent Sketchpad). ``progress``: the fraction of the gold plan in the leading actions."""
        result = self.check(text, meta)
        progress = self.leading(result.parsed or [], meta) / meta["optimum"]
        return {
            "success": float(result.ok),
            "exact": float(result.ok and len(result.parsed) == meta["optimum"]),
            "label": float(progress == 1),
            "progress": progress,
        }

    # -- states in the model's text ------------------------------------------------------------------------------------
    def said_actions(self, text: str) -> list[str]:
        words = re.findall(r"[A-Za-z]+", text.split("\\boxed")[0])
        return [w for w in words if w in ACTIONS[self.actions]]

    def shown(self, item: Item) -> dict:
        return start(item.meta["maze"])

    def state_said(self, item: Item, said: list[str]) -> dict:
        return walk(item.meta["maze"], [a for text in said for a in self.said_actions(text)], self.actions)[0]

    def legal(self, item: Item, before: dict | None, said: str, after: dict) -> bool:
        actions = self.said_actions(said)
        if before is None or not actions:
            return False
        state, hits = walk(item.meta["maze"], actions, self.actions, before)
        return not hits and state == after

    def follows(self, donor: Item, before: str, after: list[str]) -> float:
        """1 if the actions written before and after the donor's sketch lead to the donor's goal."""
        plan = self.said_actions(" ".join([before, *after]))
        return self.score(f"\\boxed{{{','.join(plan)}}}", donor.meta)["success"]
