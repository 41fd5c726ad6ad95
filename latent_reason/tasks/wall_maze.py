"""Mazes with walls (``wall_maze``), after the mazes of Latent Sketchpad: find the actions from the arrow to the red
disc.

A maze is JSON: ``right[r][c]`` is "1" if cell (r, c) is open to the east, ``down[r][c]`` if it is open to the south;
the other keys are ``start``, ``heading`` (N, E, S, W; north is up) and ``goal``. A state is ``{"cells", "heading"}``:
the path from the start without loops (entering one of its cells again removes all later ones) and the direction of the
arrow.
"""

from __future__ import annotations

import re
from typing import ClassVar

from PIL import Image as PILImage

from ..values import Interval
from . import canvas as c
from .checkers import Check, boxed
from .drawn import DrawnTask
from .item import Item, Parsed, Rejected, Step
from .stream import Stream
from .stream import canon as named
from .wall_maze_rules import (
    ACTIONS,
    COMPASS,
    MOST_ACTIONS,
    SIZES,
    beside,
    distances,
    edges,
    is_open,
    passages,
    size,
    solve,
    start,
    walk,
)
from .wall_maze_view import parse, render

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

    def __init__(self, *, actions: str = "turn", loops: int = 0, chunk: Interval = (4, 6), **options):
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
        steps: list[Step] = []
        state, rest = start(puzzle), plan
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
        return self.make_item(level, index, puzzle, [render(puzzle, self.look)], question, steps, ",".join(plan), meta)

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
