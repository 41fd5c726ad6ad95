"""Grounding of other projects: boxes of objects are written into the text, tags around them are left out.

ms-swift marks places with ``<ref-object>`` and ``<bbox>`` and has the objects in a column. Qwen-VL and InternVL have
tags around the words and the numbers. A tag that stays in the text would be taught letter by letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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
#: grounding without words or numbers that could stay: PaliGemma, Florence, Kosmos, Molmo, MiniGPT, LISA, GLaMM, ...
OPEN = re.compile(
    r"<(?:loc|seg|bin|patch_index|vloc)_?\d+>|<points?\b[^>]*>|<bbox_\w+>|<(?:mask|region|rgn)_?\d*>|\[SEG\]|<SEG>"
    r"|\{(?:<\d{1,4}>){4}\}"
)
UNITS = (None, "", "real")  # of ms-swift: pixels of the image


class Boxes:
    """The words and boxes of the column ``objects`` of a row, in the order of their places.

    Without a place in the texts, the column is like any other that the reader does not know.
    """

    def __init__(self, fields: Fields):
        self._fields, self._left = fields, dict[str, list[Any]]()

    def write(self, text: str, field: str) -> str:
        """The text with the next words and boxes at their places, without tags around words and numbers.

        Raises DataError: E10 if none is left, E05 for a box that is not a list of numbers, E18 for other grounding.
        """
        if open_tag := OPEN.search(text):
            what = f"contains '{open_tag[0][:40]}', which would be taught as text. Write the place in words."
            raise DataError("E18", field, what)
        return self._without_tags(PLACE.sub(lambda match: self._next(match[0], field), text))

    def _without_tags(self, text: str) -> str:
        """The text without tags of a grounding, with a warning. ``<ref>`` also marks footnotes: one text of the row
        with a box tells the two apart."""
        if not TAG.search(text) or not any(IS_GROUNDED.search(one) for one in _strings(self._fields.row.value)):
            return text
        self._fields.row.warn("grounding", "tags of boxes are left out; their words and numbers stay")
        return TAG.sub("", BEHIND_WORDS.sub(" ", text))

    def _next(self, sign: str, field: str) -> str:
        if not self._left:
            objects = self._fields.get(COLUMN, dict, default={})
            for key in PLACES.values():
                self._left[key] = list(get(objects, key, list, optional=True, at=f"{COLUMN}.") or [])
            _check_unit(objects)
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


def _check_unit(objects: dict) -> None:
    """Raises DataError (E05) for boxes that are not in pixels or belong to several images."""
    if (unit := objects.get("bbox_type")) not in UNITS:
        what = f"'{str(unit)[:20]}' boxes are not rescaled. Write them in pixels of the image."
        raise DataError("E05", f"{COLUMN}.bbox_type", what)
    numbers = objects.get("image_id") or []
    if any(number != 0 for number in (numbers if isinstance(numbers, list) else [numbers])):
        raise DataError("E05", f"{COLUMN}.image_id", "boxes of several images are not supported. Drop the row.")


def _strings(value: Any) -> Iterator[str]:
    """The texts of a row."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
