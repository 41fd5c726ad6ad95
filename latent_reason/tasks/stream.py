"""Random numbers and identities that never change: the ground all procedural items stand on.

An item is a pure function of its key. The key seeds SHAKE-256 (FIPS 202), whose bytes are read as 64-bit words; NumPy's
generators are not used because NumPy promises no stable stream across versions. Splits come from a hash of the puzzle,
so a puzzle is in the same split under every seed, skin and wording.
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

PAGE = 4096  # bytes of SHAKE-256 drawn at a time
SPLITS = {"train": range(0, 960), "val": range(960, 980), "test": range(980, 1000)}


class Stream:
    """The random stream of one key: ``Stream.of("frozenlake_plan", 1, "train", 0, 4, 7, 0)``."""

    def __init__(self, key: str):
        self.key = key.encode("ascii")
        self.page = 0
        self.words: list[int] = []  # what is left of the page, last word first

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
        """A whole number from 0 to n - 1, all equally likely."""
        limit = 2**64 // n * n
        while (word := self.word()) >= limit:
            pass
        return word % n

    def between(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + self.below(high - low + 1)

    def unit(self) -> float:
        """A number in [0, 1) with 53 random bits."""
        return (self.word() >> 11) / 2**53

    def choice(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def shuffle(self, items: Sequence[T]) -> list[T]:
        """A shuffled copy (Fisher-Yates from the last element)."""
        result = list(items)
        for i in range(len(result) - 1, 0, -1):
            j = self.below(i + 1)
            result[i], result[j] = result[j], result[i]
        return result


def canon(space: str, puzzle: Any) -> str:
    """The puzzle as one fixed string: canonical JSON after the name of its space, such as ``grid_board/1``."""
    return f"{space}:{json.dumps(puzzle, sort_keys=True, separators=(',', ':'), ensure_ascii=True)}"


def bucket(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode("ascii")).digest()[:8], "big") % 1000


def split_of(name: str) -> str:
    """The split a canonical string belongs to: 96 % train, 2 % val, 2 % test."""
    number = bucket(name)
    return next(split for split, numbers in SPLITS.items() if number in numbers)


@cache
def excluded() -> frozenset[str]:
    """Hashes of the boards of the VSP benchmark, which never enter train or val."""
    return frozenset(files(__package__).joinpath("excluded_boards.sha256").read_text().split())


def is_excluded(name: str) -> bool:
    return hashlib.sha256(name.encode("ascii")).hexdigest() in excluded()
