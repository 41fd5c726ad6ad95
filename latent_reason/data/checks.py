"""What can be wrong with a set although each of its rows is good: test items in train, rows too long for a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256

from ..trace import Trace
from .errors import DataError
from .pictures import pixel_hash


class Overlap:
    """Finds items of other splits that show what train shows: the same input pictures, pixel by pixel, or the same
    ``meta.state`` of one task."""

    def __init__(self) -> None:
        self._train: dict[bytes, str] = {}  # what is shown -> id
        self._others: list[tuple[str, str, list[bytes]]] = []  # split, id, what is shown

    def add(self, trace: Trace) -> None:
        pictures, state = trace.images(), trace.meta.get("state")
        shown = ["".join(map(pixel_hash, pictures))] if pictures else []
        shown += [f"{trace.task} {json.dumps(state, sort_keys=True)}"] if state else []
        keys = [sha256(text.encode("utf-8", "surrogatepass")).digest()[:16] for text in shown]
        if trace.split == "train":
            self._train |= dict.fromkeys(keys, trace.id)
        else:
            self._others.append((trace.split, trace.id, keys))

    def errors(self) -> list[DataError]:
        """E23, one a split."""
        found: dict[str, list[str]] = {}
        for split, id, keys in self._others:
            if twin := next((self._train[key] for key in keys if key in self._train), None):
                found.setdefault(split, []).append(f"{id} as {twin}")
        return [
            DataError(
                "E23",
                "split",
                f"{len(ids)} item{'s show' if len(ids) > 1 else ' shows'} in '{split}' the "
                f"pictures or the state of one in train ({', '.join(ids[:3])}{', ...' * (len(ids) > 3)}). "
                "Rebuild the splits.",
            )
            for split, ids in sorted(found.items())
        ]


def fits(length: Callable[[Trace], int], longest: int) -> Callable[[Trace], None]:
    """A check of traces by their ``length`` in positions of a model: raises DataError (E24) beyond the ``longest``."""

    def check(trace: Trace) -> None:
        if (found := length(trace)) > longest:
            raise DataError(
                "E24",
                "messages",
                f"{found:,} positions, limit {longest:,}. Shorten the row, take smaller pictures, or leave it out.",
            )

    return check
