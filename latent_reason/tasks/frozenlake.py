"""FrozenLake tasks: ``frozenlake_plan`` (which moves lead to the gift) and ``plan_check`` (are these moves safe).

Boards and images follow VSP (arXiv 2407.01863) and Mirage (arXiv 2506.17218). ``frozenlake_plan`` is VSP's main maze
task and ``plan_check`` its task 4. A sketch shows the board after the moves stated so far.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar

import numpy as np
from PIL import Image as PILImage

from ..trace import Image, Message, Text, Trace
from ..values import Bounds, Interval
from . import checkers
from . import frozenlake_board as board
from . import frozenlake_reading as reading
from . import frozenlake_view as view
from . import frozenlake_words as words
from .base import Task
from .item import TURNS, Item, Parsed, Rejected, Step
from .stream import Stream

LONGEST = {3: 4, 4: 5, 5: 7, 6: 8, 7: 10, 8: 11, 9: 13, 10: 14}  # longest path by board size for dist="uniform"


class GridTask(Task):
    """Base class of tasks on FrozenLake boards: images, states and wording."""

    solve = staticmethod(board.solve)

    redraws = True

    def __init__(self, *, skin: str = "auto", **options):
        super().__init__(**options)
        self.skin = view.skin_of(skin)

    def canon(self, puzzle: dict) -> str:
        return board.name(puzzle["map"])

    def state_sentence(self, state: dict, stream: Stream) -> str:
        return words.map_sentence(state, stream)

    def render_state(self, item: Item, state: dict) -> PILImage.Image:
        return view.render(state, item.meta["skin"])

    def parse_sketch(self, image: PILImage.Image, meta: dict) -> Parsed:
        return view.parse(image, meta["map"], meta["skin"])

    def corrupt(self, text: str, stream: Stream) -> str:
        return words.corrupt(text, stream)

    def steps(self, rows: board.Rows, chunks: list[str], last: bool, stream: Stream) -> list[Step]:
        """One step per chunk. The last step has a sketch only if ``last``."""
        steps, moves = [], ""
        start = board.state_of(rows)
        for i, chunk in enumerate(chunks):
            moves += chunk
            state = board.state_of(rows, moves)
            text = words.chunk(chunk, stream)
            drawn = last or i + 1 < len(chunks)
            if stream.unit() >= self.omit_state_p and drawn:
                text = f"{text} {words.place(state, stream)}"
            steps.append(Step(text, view.render(state, self.skin) if drawn else None, state, board.same(state, start)))
        return steps

    def in_words(self, item: Item) -> str:
        """The board in the wording of VSP's ``pure_text``."""
        return board.to_words(item.meta["map"])

    def state_said(self, item: Item, said: list[str]) -> dict:
        return board.state_of(item.meta["map"], [move for text in said for move in words.moves_in(text)])

    def same(self, one: dict | None, other: dict | None) -> bool:
        return board.same(one, other)

    def shown(self, item: Item) -> dict:
        return board.state_of(item.meta["map"])

    def variables(self, state: dict) -> dict:
        """The elf's cell as a row-major index. The board never changes, and the direction the elf faces is ignored."""
        return {"elf": state["elf"][0] * len(state["map"]) + state["elf"][1]}

    def legal(self, item: Item, before: dict | None, said: str, after: dict) -> bool:
        moves = words.moves_in(said)
        return (
            before is not None
            and bool(moves)
            and after["elf"] == list(board.walk(item.meta["map"], moves, tuple(before["elf"]))[-1])
        )

    def route(self, puzzle: dict) -> str:
        """The moves along which reading images place the elf."""
        raise NotImplementedError

    def perception(self, item: Item, index: int = 0) -> list[tuple[str, str]]:
        """Questions about the item's image with their answers."""
        stream = self.stream(item.level, item.index, f"perception{index}")
        return reading.questions(board.state_of(item.meta["map"]), stream)

    def reading_trace(self, index: int) -> Trace:
        """A chat about one image, or about the change between two images for an eighth of the items."""
        level = self.levels[index % len(self.levels)]
        puzzle = self.puzzle(level, index)
        stream = self.stream(level, index, "reading")
        states, pairs = reading.chat(puzzle["map"], self.route(puzzle), stream)
        pictures = [view.render(state, self.skin) for state in states]
        return self.chat_trace(level, index, puzzle["map"], states, pictures, pairs)

    def chat_trace(
        self,
        level: int,
        index: int,
        rows: board.Rows,
        states: list[dict],
        pictures: list[PILImage.Image],
        pairs: list[tuple[str, str]],
    ) -> Trace:
        """The chat about pictures of an item's board: pairs of questions and answers."""
        shown, messages = [Image(picture) for picture in pictures], []
        for ask, tell in pairs:
            messages.append(Message("user", (*shown, Text(ask))))
            messages.append(Message("assistant", (Text(tell),)))
            shown = []
        meta = {"map": list(rows), "skin": self.skin, "states": states, "answers": [a for _, a in pairs]}
        return Trace(
            f"{self.item_id(level, index)}-read",
            tuple(messages),
            self.name,
            self.split,
            level,
            "direct",
            pairs[-1][1],
            "same_text",
            meta,
        )


class PlanTask(GridTask):
    """Base class of tasks that ask for the moves from the elf to the gift. Level = board size.

    ``dist``: "uniform" samples the path length uniformly from ``least`` to a maximum for the size (or from ``length``),
    "vsp" accepts every solvable board, as the benchmark does.
    """

    trained = (3, 4, 5, 6)
    ood: ClassVar = {"size": {"level": (7, 8)}, "skin": {"skin": "drawn"}, "length": {"level": 6, "length": (8, 8)}}
    least = 1

    def __init__(self, *, dist: str = "uniform", length: Interval | None = None, **options):
        super().__init__(**options)
        if dist not in ("uniform", "vsp"):
            raise ValueError(f"dist is uniform or vsp; got {dist!r}")
        if not set(self.levels) <= set(LONGEST):
            raise ValueError(f"the level is the size of the board, 3 to 10; got {self.levels}")
        self.dist, self.length = dist, length

    def longest(self, level: int) -> int:
        """The longest path of a level for dist="uniform"."""
        # Only one 3x3 board with a shortest path of 4 is in val, and it belongs to the benchmark.
        return 3 if (level, self.split) == (3, "val") else LONGEST[level]

    def targets(self, level: int, stream: Stream) -> int | None:
        if self.dist == "vsp":
            return None
        return stream.between(*(self.length or (self.least, self.longest(level))))

    def draw(self, level: int, targets: int | None, stream: Stream) -> dict:
        return {"map": board.draw(stream, level)}

    def verify(self, puzzle: dict, targets: int | None) -> None:
        length = board.path_length(
            puzzle["map"]
        )  # boards are drawn until one fits, so their plans are not counted here
        if length is None:
            raise Rejected("unsolvable")
        if targets is not None and length != targets:
            raise Rejected("other path length")

    def route(self, puzzle: dict) -> str:
        return board.shortest(puzzle["map"])

    def follows(self, donor: Item, before: str, after: list[str]) -> float:
        """1 if the moves written after the donor's sketch lead the *donor's* elf from its cell in that sketch to the
        donor's goal."""
        moves = words.moves_in(before) + words.moves_in(" ".join(after))
        return next(iter(self.score(f"\\boxed{{{','.join(moves)}}}", donor.meta).values())) if moves else 0.0

    def turned(self, item: Item, turn: str) -> Item:
        """The item of the transformed board. That board may be in the training data. The elf in the image is rotated
        too."""
        letters = PILImage.fromarray(np.array([list(row.encode()) for row in item.meta["map"]], np.uint8))
        rows = [bytes(row).decode() for row in np.asarray(letters.transpose(TURNS[turn]))]
        return replace(
            self.build({"map": rows}, item.level, item.index),
            question=item.question,
            images=[i.transpose(TURNS[turn]) for i in item.images],
        )

    def concluded(self, text: str, item: Item) -> str | None:
        return ",".join(words.moves_in(text)) or None

    def wrong(self, item: Item) -> list[str]:
        moves = item.answer.split(",")
        flipped = [[*moves[:i], other, *moves[i + 1 :]] for i in range(len(moves)) for other in "UDLR"]
        goal = board.find(item.meta["map"], "G")
        return [
            ",".join(m)
            for m in [moves[:-1], [*moves[:-1], "X"], *flipped]
            if "X" in m or goal not in board.walk(item.meta["map"], m)
        ]

    def score(self, text: str, meta: dict) -> dict[str, float]:
        return {
            "success": checkers.vsp(text, meta).partial,
            "mirage": checkers.mirage(text, meta).partial,
            "exact": checkers.exact(text, meta).partial,
            "exact_strict": checkers.exact_strict(text, meta).partial,
            "progress": checkers.progress(text, meta).partial,
        }


class FrozenLakePlan(PlanTask):
    """Find the moves from the elf to the gift.

    ``chunk``: minimum and maximum number of moves between two sketches. ``path``: "canonical" selects the shortest path
    by a fixed rule, "random" samples one. Other options: see :class:`PlanTask`.
    """

    name = "frozenlake_plan"

    def __init__(self, *, chunk: Interval = (1, 3), path: str = "canonical", **options):
        super().__init__(**options)
        if path not in ("canonical", "random"):
            raise ValueError(f"path is canonical or random; got {path!r}")
        self.chunk, self.path = chunk, path

    def build(self, puzzle: dict, level: int, index: int) -> Item:
        rows, stream = puzzle["map"], self.stream(level, index, "text")
        plan = board.shortest(rows, stream.choice if self.path == "random" else None)
        chunks, rest = [], plan
        while rest:
            size = stream.between(*self.chunk)
            chunks.append(rest[:size])
            rest = rest[size:]
        question = words.question(words.PLAN_QUESTIONS, "", stream)
        steps = self.steps(rows, chunks, False, stream)  # no sketch of the goal: it adds no information
        solution = board.solve(rows)
        assert solution is not None  # boards without a plan are rejected
        length, ways = solution
        meta = {
            "map": list(rows),
            "n": level,
            "skin": self.skin,
            "checker": "vsp",
            "chunks": chunks,
            "optimum": length,
            "solutions": ways,
        }
        return self.make_item(
            level,
            index,
            {"map": list(rows)},
            [view.render(board.state_of(rows), self.skin)],
            question,
            steps,
            ",".join(plan),
            meta,
            "vsp",
        )


class PlanCheck(GridTask):
    """Decide whether the moves in the question are safe. Level = number of moves, ``n`` = board size.

    The moves are sampled before the class and the board, so they do not reveal the answer. ``answers``: "yesno" as in
    VSP task 4, or "abc" as in Mirage (A gift, B hole, C neither).
    """

    name = "plan_check"
    trained = (1, 2, 3, 4, 5, 6, 7)
    ood: ClassVar = {"length": {"level": (9, 11)}, "size": {"n": 7}, "skin": {"skin": "drawn"}}

    def __init__(self, *, n: Annotated[int, Bounds(2, 50)] = 5, answers: str = "yesno", **options):
        super().__init__(**options)
        if answers not in ("yesno", "abc"):
            raise ValueError(f"answers is yesno or abc, got {answers!r}")
        if min(self.levels) < 1:
            raise ValueError(f"the level is the number of moves, at least 1; got {self.levels}")
        if max(self.levels) > 4 * n:  # moves at random almost never stay on the board
            raise ValueError(
                f"the level is the number of moves, at most {4 * n} on a board of n={n}; got {self.levels}"
            )
        self.n, self.answers = n, answers

    def targets(self, level: int, stream: Stream) -> tuple[str, list[board.Cell], str]:
        """The moves, the start cells from which they stay on the board, and the class."""
        while True:
            moves = "".join(stream.choice("UDLR") for _ in range(level))
            path = [(0, 0)]
            for move in moves:
                path.append((path[-1][0] + board.MOVES[move][0], path[-1][1] + board.MOVES[move][1]))
            starts = [
                (r, c)
                for r in range(self.n)
                for c in range(self.n)
                if all(0 <= r + y < self.n and 0 <= c + x < self.n for y, x in path)
            ]
            if starts and (self.answers == "yesno" or path[-1] != (0, 0)):
                break
        return moves, starts, stream.choice(("Yes", "No") if self.answers == "yesno" else "ABC")

    def draw(self, level: int, targets: tuple[str, list[board.Cell], str], stream: Stream) -> dict:
        moves, starts, wanted = targets
        start, goal = stream.choice(starts), None
        if wanted == "A":
            goal = (start[0] + moves.count("D") - moves.count("U"), start[1] + moves.count("R") - moves.count("L"))
        return {"map": board.draw(stream, self.n, start, goal), "moves": moves}

    def verify(self, puzzle: dict, targets: tuple[str, list[board.Cell], str]) -> None:
        if self.answer(puzzle) != targets[2]:
            raise Rejected("other class")
        if board.path_length(puzzle["map"]) is None:
            raise Rejected("unsolvable")

    def answer(self, puzzle: dict) -> str:
        fate = checkers.fate(puzzle)
        return fate if self.answers == "abc" else "No" if fate == "B" else "Yes"

    def route(self, puzzle: dict) -> str:
        return puzzle["moves"][: len(board.walk(puzzle["map"], puzzle["moves"])) - 1]

    def build(self, puzzle: dict, level: int, index: int) -> Item:
        rows, moves, stream = puzzle["map"], puzzle["moves"], self.stream(level, index, "text")
        templates = words.CHECK_QUESTIONS if self.answers == "yesno" else words.FATE_QUESTIONS
        question = words.question(templates, moves, stream)
        steps = self.steps(rows, list(self.route(puzzle)), True, stream)
        checker = "vsp_task4" if self.answers == "yesno" else "mirage_check"
        meta: dict[str, Any] = {
            "map": list(rows),
            "n": len(rows),
            "moves": moves,
            "skin": self.skin,
            "checker": checker,
            "chunks": list(self.route(puzzle)),
        }
        return self.make_item(
            level,
            index,
            {"map": list(rows), "moves": moves},
            [view.render(board.state_of(rows), self.skin)],
            question,
            steps,
            self.answer(puzzle),
            meta,
            checker,
        )

    def wrong(self, item: Item) -> list[str]:
        return [a for a in ("Yes", "No", "A", "B", "C", "maybe", "yes and no") if a != item.answer]

    def score(self, text: str, meta: dict) -> dict[str, float]:
        return {"accuracy": getattr(checkers, meta["checker"])(text, meta).partial}
