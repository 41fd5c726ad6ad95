"""Checks of a whole data set: test items that occur in train, and rows that are too long for a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256

from ..trace import Trace
from .errors import DataError
from .pictures import pixel_hash


class Overlap:
    """Finds items of other splits that equal a training item: the same input images, pixel by pixel, or the same task
    and ``meta.state``."""

    def __init__(self) -> None:
        self._train: dict[bytes, str] = {}  # hash of the content -> id
        self._others: list[tuple[str, str, list[bytes]]] = []  # split, id, hashes of the content

    def add(self, trace: Trace) -> None:
        images, state = trace.images(), trace.meta.get("state")
        contents = ["".join(map(pixel_hash, images))] if images else []
        contents += [f"{trace.task} {json.dumps(state, sort_keys=True)}"] if state else []
        keys = [sha256(text.encode("utf-8", "surrogatepass")).digest()[:16] for text in contents]
        if trace.split == "train":
            self._train |= dict.fromkeys(keys, trace.id)
        else:
            self._others.append((trace.split, trace.id, keys))

    def errors(self) -> list[DataError]:
        """E23 errors, one per split."""
        duplicates: dict[str, list[str]] = {}
        for split, id, keys in self._others:
            if twin := next((self._train[key] for key in keys if key in self._train), None):
                duplicates.setdefault(split, []).append(f"{id} as {twin}")
        return [
            DataError(
                "E23",
                "split",
                f"{len(ids)} item{'s' * (len(ids) > 1)} in '{split}' with the images or state of a training item "
                f"({', '.join(ids[:3])}{', ...' * (len(ids) > 3)}). "
                "Rebuild the splits.",
            )
            for split, ids in sorted(duplicates.items())
        ]


def trains(length: Callable[[Trace], int], longest: int | None = None) -> Callable[[Trace], None]:
    """A check of traces for training with a method. ``length`` encodes a trace and counts its positions. Raises
    DataError: E24 for more than ``longest`` positions, E26 for a trace that cannot be encoded."""

    def check(trace: Trace) -> None:
        try:
            num_tokens = length(trace)
        except ValueError as error:
            raise DataError("E26", "messages", str(error)) from None
        if longest is not None and num_tokens > longest:
            raise DataError(
                "E24",
                "messages",
                f"{num_tokens:,} positions, limit {longest:,}. Shorten the row, use smaller images or remove it.",
            )

    return check
