"""Text templates of the FrozenLake tasks: short common words, about one token each, with several wordings per slot.

Moves are the single letters U, D, L, R. No template contains such a letter otherwise, so ``moves_in`` can parse the
moves from any wording.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .checkers import LETTER
from .frozenlake_board import cell_at, map_line
from .stream import Stream

PLAN_QUESTIONS = (
    "Find a safe path from the elf to the gift.",
    "Lead the elf to the gift.",
    "How does the elf reach the gift?",
    "Plan the moves from the elf to the gift.",
    "Guide the elf to the gift and avoid the holes.",
    "Which moves bring the elf to the gift?",
)
CHECK_QUESTIONS = (
    "Is it safe to move {moves}?",
    "The elf moves {moves}. Is that safe?",
    "Check the plan {moves}. Is it safe?",
    "Is the plan {moves} safe for the elf?",
    "Does the elf stay out of the holes with {moves}?",
)
FATE_QUESTIONS = (
    "Where do the moves {moves} lead? A gift, B hole, C neither.",
    "The elf moves {moves}. Where does it end? A gift, B hole, C neither.",
    "Check the plan {moves}: A gift, B hole, C neither.",
    "What does the plan {moves} reach? A gift, B hole, C neither.",
    "Follow the moves {moves}. What is the end? A gift, B hole, C neither.",
)
CHUNKS = ("Go {moves}.", "Move {moves}.", "Take {moves}.", "Step {moves}.", "Then {moves}.", "Next {moves}.")
PLACES = ("Now at {cell}.", "The elf is at {cell}.", "At {cell}.", "It stands at {cell}.", "Here is {cell}.")
FALLS = ("It falls in a hole.", "The elf falls.", "That is a hole.", "A hole.", "The ice breaks.")
MAPS = ("Map: {map}.", "The map: {map}.", "Board: {map}.", "The board: {map}.", "Now the map: {map}.")

_ANSWER = re.compile(r"\\boxed\{[^}]*\}?|Action [Pp]lan:.*", re.DOTALL)
_MOVE = re.compile(r"\b(?:[UDLR]|[Uu]p|[Dd]own|[Ll]eft|[Rr]ight)\b")


def question(templates: Sequence[str], moves: str, stream: Stream) -> str:
    return stream.choice(templates).format(moves=" ".join(moves))


def chunk(moves: str, stream: Stream) -> str:
    return stream.choice(CHUNKS).format(moves=" ".join(moves))


def cell_words(cell: Sequence[int]) -> str:
    """A cell in text. Rows and columns count from 1."""
    return f"row {cell[0] + 1} column {cell[1] + 1}"


def place(state: dict, stream: Stream) -> str:
    """The clause that states the elf's position."""
    fallen = cell_at(state["map"], state["elf"]) == "H"
    return stream.choice(FALLS if fallen else PLACES).format(cell=cell_words(state["elf"]))


def map_sentence(state: dict, stream: Stream) -> str:
    """The complete state in text. Text traces use it in place of a sketch."""
    return stream.choice(MAPS).format(map=map_line(state))


def moves_in(text: str) -> list[str]:
    """The moves that a text states, in order, without its final answer."""
    return [LETTER.get(word.upper(), word) for word in _MOVE.findall(_ANSWER.sub(" ", text))]


def corrupt(text: str, stream: Stream) -> str:
    """The text with one of its moves replaced by another move."""
    body = _ANSWER.search(text)
    matches = list(_MOVE.finditer(text, 0, body.start() if body else len(text)))
    if not matches:
        return text
    match = stream.choice(matches)
    old = LETTER.get(match[0].upper(), match[0])
    return text[: match.start()] + stream.choice([m for m in "UDLR" if m != old]) + text[match.end() :]
