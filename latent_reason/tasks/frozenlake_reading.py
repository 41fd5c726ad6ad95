"""Questions about FrozenLake images: dense supervision from which a small model learns to perceive the board.

Answers are one or two words; ``read the map`` asks for the whole board. Rows and columns count from 1.
"""

from __future__ import annotations

from . import frozenlake_board as board
from .frozenlake_words import cell_words
from .stream import Stream

NAMES = {"F": "ice", "H": "hole", "G": "gift", "S": "stool", "E": "elf", "X": "broken ice"}
WORDINGS = {
    "map": ("Read the map.", "Write the map.", "Give the whole map.", "What is the map?", "Spell the board."),
    "cell": (
        "What is at {cell}?",
        "What does {cell} hold?",
        "Name the thing at {cell}.",
        "Which thing is at {cell}?",
        "Look at {cell}: what is there?",
    ),
    "hole": (
        "Is there a hole at {cell}?",
        "Is {cell} a hole?",
        "Does {cell} hold a hole?",
        "Hole at {cell}?",
        "Can the elf fall at {cell}?",
    ),
    "elf": (
        "Where is the elf?",
        "Find the elf.",
        "Which cell holds the elf?",
        "Where does the elf stand?",
        "Give the place of the elf.",
    ),
    "gift": (
        "Where is the gift?",
        "Find the gift.",
        "Which cell holds the gift?",
        "Where does the gift stand?",
        "Give the place of the gift.",
    ),
    "count": (
        "How many holes are in row {row}?",
        "Count the holes in row {row}.",
        "Holes in row {row}?",
        "Row {row} has how many holes?",
        "Give the number of holes in row {row}.",
    ),
    "row": ("Read row {row}.", "Write row {row}.", "What is in row {row}?", "Spell row {row}.", "Give row {row}."),
    "beside": (
        "What is {move} of the elf?",
        "What does the elf meet on {move}?",
        "The elf goes {move}: what is there?",
        "Look {move} of the elf.",
        "Name the thing {move} of the elf.",
    ),
    "safe": (
        "Which moves are safe?",
        "Which moves avoid the holes now?",
        "Name the safe moves.",
        "Where can the elf go?",
        "List the safe moves.",
    ),
    "way": (
        "Which way is the gift from the elf?",
        "Where is the gift seen from the elf?",
        "Show the way to the gift.",
        "How far is the gift, and where?",
        "Count the cells from the elf to the gift.",
    ),
    "from": (
        "Where was the elf before?",
        "Where did the elf start to move?",
        "Which cell did the elf leave?",
        "Where is the elf in the first picture?",
        "From where did the elf go?",
    ),
    "to": (
        "Where is the elf now?",
        "Where did the elf go?",
        "Which cell did the elf enter?",
        "Where is the elf in the second picture?",
        "To where did the elf move?",
    ),
    "moved": (
        "Which moves were made?",
        "How did the elf move?",
        "Which moves lead to the second picture?",
        "Name the moves of the elf.",
        "What moves did the elf take?",
    ),
    "changed": (
        "What changed?",
        "What is new in the second picture?",
        "Compare the pictures.",
        "Tell what changed.",
        "What happened?",
    ),
    "new_map": (
        "Read the map of the second picture.",
        "Write the second map.",
        "Give the whole map after the move.",
        "What is the new map?",
        "Spell the second board.",
    ),
}
# question types for one image and for two images, with repetition as weight
ONE = ("cell", "cell", "cell", "hole", "hole", "elf", "gift", "count", "row", "row", "beside", "safe", "way")
TWO = ("from", "to", "moved", "gift", "hole", "hole", "count", "count")
THING = "FHGE"  # a cell question samples its answer first, so that ice is not the most frequent one


def _cell(shown: list[str], wanted: str, stream: Stream) -> board.Cell:
    n = len(shown)
    cells = [(r, c) for r in range(n) for c in range(n) if shown[r][c] == wanted]
    return stream.choice(cells) if cells else (stream.below(n), stream.below(n))


def ask(kind: str, state: dict, stream: Stream, before: dict | None = None) -> tuple[str, str]:
    """A question of type ``kind`` about the state, with its answer. ``before``: the state of the previous image."""
    shown, rows, elf = board.letters(state), state["map"], tuple(state["elf"])
    cell = _cell(shown, stream.choice("HHF" if kind == "hole" else THING), stream)
    row, move = stream.below(len(rows)), stream.choice("UDLR")
    target = board.step(rows, elf, move)
    origin = tuple(before["elf"]) if before else elf
    moves = way(origin, elf)
    answers = {
        "map": lambda: board.map_line(state),
        "new_map": lambda: board.map_line(state),
        "cell": lambda: NAMES[shown[cell[0]][cell[1]]],
        "hole": lambda: "yes" if board.cell_at(rows, cell) == "H" else "no",
        "elf": lambda: cell_words(elf),
        "to": lambda: cell_words(elf),
        "from": lambda: cell_words(origin),
        "gift": lambda: cell_words(board.find(rows, "G")),
        "count": lambda: str(rows[row].count("H")),
        "row": lambda: " ".join(shown[row]),
        "beside": lambda: "edge" if target == elf else NAMES[shown[target[0]][target[1]]],
        "safe": lambda: (
            " ".join(m for m in "UDLR" if (to := board.step(rows, elf, m)) != elf and board.cell_at(rows, to) != "H")
            or "none"
        ),
        "moved": lambda: moves,
        "way": lambda: way(elf, board.find(rows, "G")),
        "changed": lambda: f"The elf moved {moves} from {cell_words(origin)} to {cell_words(elf)}.",
    }
    wording = stream.choice(WORDINGS[kind])
    return wording.format(cell=cell_words(cell), row=row + 1, move=move), answers[kind]()


def way(origin: board.Cell, end: board.Cell) -> str:
    """The moves between two cells, ignoring holes."""
    (r, c), (y, x) = origin, end
    return " ".join("D" * (y - r) + "U" * (r - y) + "R" * (x - c) + "L" * (c - x)) or "none"


def questions(state: dict, stream: Stream) -> list[tuple[str, str]]:
    """4 to 8 distinct questions about one image. Two of three items include ``read the map``."""
    kinds = ["map"] if stream.below(3) else []
    return stream.shuffle(_pairs(kinds, ONE, stream.between(4, 8), state, stream))


def _pairs(
    kinds: list[str], more: tuple[str, ...], count: int, state: dict, stream: Stream, before: dict | None = None
) -> list[tuple[str, str]]:
    """Up to ``count`` distinct questions: one of each type in ``kinds``, then of ``more`` in random order."""
    pairs: dict[str, str] = {}
    for kind in [*kinds, *stream.shuffle(more)]:
        if len(pairs) < count:
            pairs.update([ask(kind, state, stream, before)])
    return list(pairs.items())


def chat(rows: board.Rows, route: str, stream: Stream) -> tuple[list[dict], list[tuple[str, str]]]:
    """The states to show (one, or two for an eighth of the items) and the questions about them.

    Three of four items ask only for the whole map and the way to the gift without regard to holes, which is the densest
    supervision per token. The elf is on a cell of the route or, half of the time, on any safe cell in any direction.
    """
    whole = bool(stream.below(4))
    if not whole and route and stream.below(2):
        at = stream.below(len(route))
        straight = len(route[at:]) - len(route[at:].lstrip(route[at]))
        end = at + stream.between(1, min(straight, 3))
        before, after = (board.state_of(rows, route[:k]) for k in (at, end))
        kinds = ["changed", "new_map"] if stream.below(3) else ["changed"]
        return [before, after], _pairs(kinds, TWO, stream.between(4, 7), after, stream, before)
    state = board.state_of(rows, route[: stream.below(len(route) + 1)])
    if stream.below(2):
        safe = [[r, c] for r, row in enumerate(rows) for c, letter in enumerate(row) if letter in "SF"]
        state |= {"elf": stream.choice(safe), "facing": stream.choice("UDLR")}
    if not whole:
        return [state], questions(state, stream)
    return [state], stream.shuffle([ask(kind, state, stream) for kind in ("map", "way")])
