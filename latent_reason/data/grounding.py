"""Grounding of other projects: boxes of objects are written into the text, tags around them are left out.

ms-swift marks places with ``<ref-object>`` and ``<bbox>`` and has the objects in a column. Qwen-VL and InternVL have
tags around the words and the numbers. A tag that stays in the text would be taught letter by letter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from .errors import DataError
from .reading import Fields

COLUMN = "objects"
PLACES = {"<ref-object>": "ref", "<bbox>": "bbox"}
PLACE = re.compile("|".join(PLACES))
TAG = re.compile(r"<\|(?:object_ref|box|quad)_(?:start|end)\|>|</?(?:ref|box|quad)>")
BEHIND_WORDS = re.compile(r"(?<=\S)(?=<\|(?:box|quad)_start\|>|<(?:box|quad)>)")
IS_GROUNDED = re.compile(r"<\|(?:object_ref|box|quad)_start\|>|<(?:box|quad)>\s*[\[(<\d]")
OPEN = re.compile(r"<loc\d+>|<seg\d+>|<point\b[^>]*>")  # without words or numbers that could stay


class Boxes:
    """The words and boxes of the column ``objects`` of a row, in the order of their places."""

    def __init__(self, fields: Fields):
        objects = fields.get(COLUMN, dict, optional=True) or {}
        self._left: dict[str, Iterator[Any]] = {}
        self._num_left: dict[str, int] = {}
        for key in PLACES.values():
            values = objects.get(key) or []
            if not isinstance(values, list):
                raise DataError("E05", f"{COLUMN}.{key}", "expected a list. See the format table.")
            self._left[key], self._num_left[key] = iter(values), len(values)

    def write(self, text: str, field: str) -> str:
        """The text with the next words and boxes at their places.

        Raises DataError: E10 if none is left, E05 for a box that is not a list of numbers, E18 for other grounding.
        """
        if open_tag := OPEN.search(text):
            what = f"contains '{open_tag[0][:40]}', which would be taught as text. Write the place in words."
            raise DataError("E18", field, what)
        return PLACE.sub(lambda match: self._next(match[0], field), text)

    def _next(self, sign: str, field: str) -> str:
        key = PLACES[sign]
        if not self._num_left[key]:
            raise DataError("E10", field, f"{sign} without an entry in '{COLUMN}.{key}'. Counts must match.")
        self._num_left[key] -= 1
        value = next(self._left[key])
        if key == "ref" and isinstance(value, str):
            return value
        if key == "bbox" and isinstance(value, list) and value and all(type(x) in (int, float) for x in value):
            return f"[{', '.join(map(str, value))}]"
        expected = "a string" if key == "ref" else "a list of numbers"
        raise DataError("E05", f"{COLUMN}.{key}", f"an entry is not {expected}. Correct it or drop the row.")

    def check_used(self) -> None:
        """Raises DataError (E10) if a box has no place in the texts. Words without a place only name the boxes."""
        if left := self._num_left["bbox"]:
            raise DataError(
                "E10", COLUMN, f"{left} more in '{COLUMN}.bbox' than <bbox> in the texts. Counts must match."
            )


def remove_tags(text: str, warn: Callable[[str, str], None]) -> str:
    """The text without tags around words and numbers of a grounding, with a warning."""
    if not IS_GROUNDED.search(text):
        return text
    warn("grounding", "tags of boxes are left out; their words and numbers stay")
    return TAG.sub("", BEHIND_WORDS.sub(" ", text))
