"""The sentences of ``scene_edit``: questions, edits, queries and states, and the edits that a text names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .scene_edit_rules import (
    HUES,
    MANY,
    SIDE,
    WHAT,
)
from .stream import Stream

QUESTIONS = (
    "{edits} {query}",
    "Edit the scene: {edits} {query}",
    "Do this in order: {edits} Then answer: {query}",
    "{edits} After that: {query}",
    "Carry out these edits: {edits} {query}",
)
EDITS = {
    "remove": (
        "Remove all {what}.",
        "Take away all {what}.",
        "Delete all {what}.",
        "Erase all {what}.",
        "Clear away all {what}.",
    ),
    "recolour": (
        "Make all {what} {to}.",
        "Paint all {what} {to}.",
        "Turn all {what} {to}.",
        "Colour all {what} {to}.",
        "Recolour all {what} to {to}.",
    ),
    "add": (
        "Add {k} {many} in the leftmost free cells of row {row}.",
        "Put {k} {many} in the leftmost free cells of row {row}.",
        "Place {k} {many} in row {row}, in its leftmost free cells.",
        "Fill the {k} leftmost free cells of row {row} with {many}.",
        "Row {row} gets {k} {many} in its leftmost free cells.",
    ),
    "move": (
        "Move {line} {at} by {k} to the {way}, round the edge.",
        "Rotate {line} {at} by {k} to the {way}.",
        "Shift {line} {at} by {k} to the {way}; what leaves comes in again on the other side.",
        "Push {line} {at} by {k} to the {way} and let what falls off come in on the other side.",
        "Let {line} {at} go round by {k} to the {way}.",
    ),
}
QUERIES = {
    "count": (
        "How many {what} are there?",
        "Count the {what}.",
        "What is the number of {what}?",
        "How many {what} do you see?",
        "How many {what} does the scene hold?",
    ),
    "exists": (
        "Are there any {what}? Yes or No.",
        "Does the scene hold {what}? Yes or No.",
        "Do you see any {what}? Yes or No.",
        "Are any {what} left? Yes or No.",
        "Any {what}? Yes or No.",
    ),
    "compare": (
        "Are there more {what} than {other}? Yes or No.",
        "More {what} than {other}? Yes or No.",
        "Is the number of {what} above that of {other}? Yes or No.",
        "Do the {what} outnumber the {other}? Yes or No.",
        "Do you see more {what} than {other}? Yes or No.",
    ),
    "colour": (
        "What colour has the leftmost object of row {row}?",
        "Which colour is leftmost in row {row}?",
        "Name the colour of the leftmost object in row {row}.",
        "Row {row}, leftmost object: which colour?",
        "What is the colour of the leftmost object in row {row}?",
    ),
    "shape": (
        "What shape has the leftmost object of row {row}?",
        "Which shape is leftmost in row {row}?",
        "Name the shape of the leftmost object in row {row}.",
        "Row {row}, leftmost object: which shape?",
        "What is the shape of the leftmost object in row {row}?",
    ),
}
DISTINCT = {
    "count": 4,
    "exists": 2,
    "compare": 2,
    "colour": 4,
    "shape": 4,
}  # smallest number of answers that a text must allow
SCENES = (
    "Now: {scene}.",
    "The scene: {scene}.",
    "The scene holds {scene}.",
    "What stands there: {scene}.",
    "In the grid: {scene}.",
    "One sees {scene}.",
)
CHANGES = ("Changed: {cells}.", "Now {cells}.", "So {cells}.", "This gives {cells}.", "The new cells: {cells}.")
FIELD = {
    "what": r"[a-z ]+?",
    "to": "|".join(HUES),
    "many": r"[a-z ]+?",
    "k": r"\d",
    "row": r"\d",
    "at": r"\d",
    "line": "row|column",
    "way": "left|right|top|bottom",
}
PATTERNS = [
    (kind, re.compile(re.sub(r"\\{(\w+)\\}", lambda m: f"(?P<{m[1]}>{FIELD[m[1]]})", re.escape(phrase)), re.A))
    for kind, wordings in EDITS.items()
    for phrase in wordings
]


def edits_in(text: str) -> list[dict]:
    """The edits that a text states, in order."""
    found = {}
    for kind, pattern in PATTERNS:
        for match in pattern.finditer(text):
            edit: dict[str, Any] = {
                "kind": kind,
                **{k: int(v) if v.isdigit() else v for k, v in match.groupdict().items()},
            }
            if (
                edit.get("what", "objects") in WHAT
                and edit.get("many", "small red circles") in MANY
                and all(1 <= edit.get(key, 1) <= SIDE for key in ("row", "at", "k"))
            ):
                found[match.start()] = edit
    return [found[start] for start in sorted(found)]


def phrase(templates: Mapping[str, tuple[str, ...]], thing: dict, stream: Stream) -> str:
    """An edit or a query in a random wording."""
    return stream.choice(templates[thing["kind"]]).format(**thing)


def changes(before: list[list], after: list[list]) -> str:
    """The cells that differ, with their new contents."""
    old, new = ({(y, x): name for y, x, name in state} for state in (before, after))
    return ", ".join(
        f"row {y} column {x}: {new.get((y, x), 'empty')}"
        for y, x in sorted({*old, *new})
        if old.get((y, x)) != new.get((y, x))
    )
