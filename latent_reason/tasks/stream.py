"""Reproducible random streams, canonical strings and splits of procedural items.

An item is a pure function of its key. The key seeds SHAKE-256 (FIPS 202), whose output is read as 64-bit words. NumPy's
generators are not used because NumPy does not guarantee the same stream across versions. The split is a hash of the
puzzle, so a puzzle is in the same split for every seed, skin and wording.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

T = TypeVar("T")

PAGE = 4096  # bytes of SHAKE-256 output per digest
SPLITS = {"train": range(0, 960), "val": range(960, 980), "test": range(980, 1000)}


class Stream:
    """The random stream of one key: ``Stream.of("frozenlake_plan", 1, "train", 0, 4, 7, 0)``."""

    def __init__(self, key: str):
        self.key = key.encode("ascii")
        self.page = 0
        self.words: list[int] = []  # unread words of the page, in reverse order

    @classmethod
    def of(cls, *fields: Any) -> Stream:
        return cls("|".join(["latent_reason/1", *map(str, fields)]))

    def word(self) -> int:
        if not self.words:
            data = hashlib.shake_256(self.key + self.page.to_bytes(8, "big")).digest(PAGE)
            self.words = list(struct.unpack(f">{PAGE // 8}Q", data))[::-1]
            self.page += 1
        return self.words.pop()

    def below(self, n: int) -> int:
        """A uniform integer from 0 to n - 1."""
        limit = 2**64 // n * n
        while (word := self.word()) >= limit:
            pass
        return word % n

    def between(self, low: int, high: int) -> int:
        """A uniform integer from low to high, both included."""
        return low + self.below(high - low + 1)

    def unit(self) -> float:
        """A uniform float in [0, 1) with 53 random bits."""
        return (self.word() >> 11) / 2**53

    def choice(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def shuffle(self, items: Sequence[T]) -> list[T]:
        """A shuffled copy (Fisher-Yates, from the last element)."""
        result = list(items)
        for i in range(len(result) - 1, 0, -1):
            j = self.below(i + 1)
            result[i], result[j] = result[j], result[i]
        return result


def canon(space: str, puzzle: Any) -> str:
    """The canonical string of a puzzle: the name of its space, such as ``grid_board/1``, and canonical JSON."""
    return f"{space}:{json.dumps(puzzle, sort_keys=True, separators=(',', ':'), ensure_ascii=True)}"


def bucket(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode("ascii")).digest()[:8], "big") % 1000


def split_of(name: str) -> str:
    """The split a canonical string belongs to: 96 % train, 2 % val, 2 % test."""
    number = bucket(name)
    return next(split for split, numbers in SPLITS.items() if number in numbers)


@cache
def excluded() -> frozenset[str]:
    """Hashes of the boards of the VSP benchmark. They are excluded from train and val."""
    return frozenset(files(__package__).joinpath("excluded_boards.sha256").read_text().split())


def is_excluded(name: str) -> bool:
    return hashlib.sha256(name.encode("ascii")).hexdigest() in excluded()
