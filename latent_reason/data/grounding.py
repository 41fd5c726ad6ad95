"""Grounding of other projects: boxes of objects are written into the text, tags around them are left out.

ms-swift marks places with ``<ref-object>`` and ``<bbox>`` and has the objects in a column. Qwen-VL and InternVL have
tags around the words and the numbers. A tag that stays in the text would be taught letter by letter.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .errors import DataError
from .reading import Fields
from .record import get

COLUMN = "objects"
PLACES = {"<ref-object>": "ref", "<bbox>": "bbox"}
PLACE = re.compile("|".join(PLACES))
TAG = re.compile(r"<\|(?:object_ref|box|quad)_(?:start|end)\|>|</?(?:ref|box|quad)>")
BEHIND_WORDS = re.compile(r"(?<=\S)(?=<\|(?:box|quad)_start\|>|<(?:box|quad)>)")
IS_GROUNDED = re.compile(r"<\|(?:object_ref|box|quad)_start\|>|<(?:box|quad)>\s*[\[(<\d]")
OPEN = re.compile(r"<loc\d+>|<seg\d+>|<point\b[^>]*>")  # without words or numbers that could stay


class Boxes:
    """The words and boxes of the column ``objects`` of a row, in the order of their places.

    Without a place in the texts, the column is like any other that the reader does not know.
    """

    def __init__(self, fields: Fields):
        self._fields, self._left = fields, dict[str, list[Any]]()

    def write(self, text: str, field: str) -> str:
        """The text with the next words and boxes at their places.

        Raises DataError: E10 if none is left, E05 for a box that is not a list of numbers, E18 for other grounding.
        """
        if open_tag := OPEN.search(text):
            what = f"contains '{open_tag[0][:40]}', which would be taught as text. Write the place in words."
            raise DataError("E18", field, what)
        return PLACE.sub(lambda match: self._next(match[0], field), text)

    def _next(self, sign: str, field: str) -> str:
        if not self._left:
            objects = self._fields.get(COLUMN, dict, default={})
            for key in PLACES.values():
                self._left[key] = list(get(objects, key, list, optional=True, at=f"{COLUMN}.") or [])
        key = PLACES[sign]
        if not self._left[key]:
            raise DataError("E10", field, f"{sign} without an entry in '{COLUMN}.{key}'. Counts must match.")
        value = self._left[key].pop(0)
        if key == "ref" and isinstance(value, str):
            return value
        if key == "bbox" and isinstance(value, list) and value and all(type(x) in (int, float) for x in value):
            return f"[{', '.join(map(str, value))}]"
        expected = "a string" if key == "ref" else "a list of numbers"
        raise DataError("E05", f"{COLUMN}.{key}", f"an entry is not {expected}. Correct it or drop the row.")

    def check_used(self) -> None:
        """Raises DataError (E10) if some boxes have a place and others none. Words without a place name boxes."""
        if left := len(self._left.get("bbox", [])):
            what = f"{left} more in '{COLUMN}.bbox' than <bbox> in the texts. Counts must match."
            raise DataError("E10", COLUMN, what)


def remove_tags(text: str, warn: Callable[[str, str], None]) -> str:
    """The text without tags around words and numbers of a grounding, with a warning."""
    if not IS_GROUNDED.search(text):
        return text
    warn("grounding", "tags of boxes are left out; their words and numbers stay")
    return TAG.sub("", BEHIND_WORDS.sub(" ", text))
