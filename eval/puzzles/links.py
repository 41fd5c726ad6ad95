"""Lines between places, and words: bridges, loops, words in a grid, ladders of words."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations

from .answers import Cell, components, rule

ENDS = r"[(\[]\s*(\d{1,3})\s*,\s*(\d{1,3})\s*[)\]]\s*(?:-+>?|–|—|to|→)\s*[(\[]\s*(\d{1,3})\s*,\s*(\d{1,3})\s*[)\]]"


def read_bridges(text: str) -> list[tuple[Cell, Cell, int]] | None:
    """Bridges such as ``(0,0)-(0,2):2``."""
    found = re.findall(ENDS + r"\s*[:=]?\s*(\d)\b", text)
    return [((int(a), int(b)), (int(c), int(d)), int(count)) for a, b, c, d, count in found] or None


def between(a: Cell, b: Cell) -> set[Cell]:
    """The cells between two cells of a row or column."""
    if a[0] == b[0]:
        return {(a[0], i) for i in range(min(a[1], b[1]) + 1, max(a[1], b[1]))}
    return {(i, a[1]) for i in range(min(a[0], b[0]) + 1, max(a[0], b[0]))}


@rule(read_bridges)
def bridges(found: list[tuple[Cell, Cell, int]], meta: dict) -> bool:
    """Straight bridges, one or two between two islands, that do not cross, connect all islands and give their numbers."""
    islands = {(island["x"], island["y"]): island["num"] for island in meta["state"]["islands"]}
    number: Counter = Counter()
    for a, b, count in found:
        is_straight = (a[0] == b[0]) != (a[1] == b[1])
        if not {a, b} <= set(islands) or not is_straight or between(a, b) & set(islands):
            return False
        number[frozenset((a, b))] += count
    if any(not 1 <= count <= 2 for count in number.values()) or _crosses(list(number)):
        return False
    degree = {island: sum(count for pair, count in number.items() if island in pair) for island in islands}
    joined = {island: {other for pair in number if island in pair for other in pair} for island in islands}
    return degree == islands and len(components(set(islands), lambda island: joined[island])) == 1


def _crosses(pairs: list[frozenset]) -> bool:
    return any(between(*first) & between(*second) for first, second in combinations(pairs, 2))


def read_segments(text: str) -> list[tuple[Cell, Cell]] | None:
    """Segments such as ``(0,0)-(0,1) (0,1)-(1,1)``."""
    return [((int(a), int(b)), (int(c), int(d))) for a, b, c, d in re.findall(ENDS, text)] or None


@rule(read_segments)
def loop(segments: list[tuple[Cell, Cell]], meta: dict) -> bool:
    """Shingoki: one loop of unit segments through all circles: straight through W, turning at B; the number of a circle
    is the length of the two straight lines that leave it."""
    grid = meta["state"]["grid"] if isinstance(meta["state"], dict) else meta["state"]
    circles = {(r, c): cell for r, row in enumerate(grid) for c, cell in enumerate(row) if cell and cell[0] in "WB"}
    if not circles or any(abs(a[0] - b[0]) + abs(a[1] - b[1]) != 1 for a, b in segments):
        return False
    joined: dict[Cell, set[Cell]] = {}
    for a, b in segments:
        joined.setdefault(a, set()).add(b)
        joined.setdefault(b, set()).add(a)
    is_loop = all(len(others) == 2 for others in joined.values()) and len(segments) == len(joined)
    if not is_loop or len(components(set(joined), lambda point: joined[point])) > 1 or not set(circles) <= set(joined):
        return False
    for point, circle in circles.items():
        lengths = {_direction(point, other): _line_length(point, other, joined) for other in joined[point]}
        (a, b), is_straight = lengths, sum(d[0] for d in lengths) == sum(d[1] for d in lengths) == 0
        if is_straight != (circle[0] == "W") or sum(lengths.values()) != int(circle[1:]):
            return False
    return True


def _direction(a: Cell, b: Cell) -> Cell:
    return b[0] - a[0], b[1] - a[1]


def _line_length(point: Cell, following: Cell, joined: dict[Cell, set[Cell]]) -> int:
    """The length of the straight line from a point of a loop through the next one."""
    (dr, dc), length = _direction(point, following), 1
    while (beyond := (following[0] + dr, following[1] + dc)) in joined[following]:
        following, length = beyond, length + 1
    return length


def read_places(text: str) -> dict[str, tuple[str, Cell]] | None:
    """Words with direction and place: ``BEE S @ (1,2)`` or ``BEE S (1, 2) @``."""
    found = re.findall(
        r"\b([A-Za-z]{2,})\s+(N|S|E|W|NE|NW|SE|SW)\s*@?\s*\(\s*(\d{1,3})\s*,\s*(\d{1,3})\s*\)", text, re.IGNORECASE
    )
    return {word.lower(): (side.upper(), (int(x), int(y))) for word, side, x, y in found} or None


@rule(read_places)
def word_search(places: dict[str, tuple[str, Cell]], meta: dict) -> bool:
    """The place and direction of each word; they are unique."""
    return places == read_places(str(meta["gold"]))


def read_ladder(text: str) -> list[str] | None:
    """Words separated by arrows, commas or lines, or a list of words."""
    words = [word for word in re.split(r"\s*(?:-+>|→|,|\n)\s*", text.strip("[]")) if word]
    words = [word.strip(" \"'").lower() for word in words]
    return words if len(words) > 1 and all(word.isalpha() for word in words) else None


@rule(read_ladder)
def word_ladder(words: list[str], meta: dict) -> bool:
    """The published ladder. Other ladders are not credited: what is a word would need a dictionary."""
    return words == read_ladder(str(meta["gold"]))
