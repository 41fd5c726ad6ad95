"""Checks of a whole data set: test items that occur in train, and rows that a method cannot be trained on or that are too
long for a model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from ..errors import did_you_mean
from ..trace import Trace
from .errors import DataError
from .pictures import pixel_hash

#: rules that grade the answer of a record: of replies, of plans and of the tasks, which stand above this package
CHECKERS = (
    *("same_text", "text", "yes_no", "number", "numbers", "set", "math"),
    *("vsp", "mirage", "progress", "exact", "exact_strict", "vsp_task4", "mirage_check"),
    *("blocks", "cube_net", "dice_net", "fold_punch", "frozenlake_plan", "jigsaw", "plan_check", "ray", "rush_hour"),
    *("scene_edit", "search_zoom", "shortest_ways", "slide", "transform", "wall_maze"),
)
NUMBER = re.compile(
    r"\d|\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|forty|fifty|sixty"
    r"|seventy|eighty|ninety)\b|[一二三四五六七八九十零]|\\pi|π",
    re.IGNORECASE,
)
YES_NO = re.compile(r"\W*(?:yes|no)\b", re.IGNORECASE)


def check_checker(name: str) -> None:
    """Raises ValueError if no rule and no task has this name."""
    if name not in CHECKERS:
        raise ValueError(f"there is no checker '{name}'. {did_you_mean(name, CHECKERS)}")


def check_gold(answer: str, checker: str, field: str) -> None:
    """Raises DataError (E05) if no reply can be right by ``checker``: the answer is no number, or not yes or no."""
    if checker in ("number", "numbers") and not NUMBER.search(answer):
        what = f"'{answer[:40]}' holds no number, which the checker '{checker}' needs. Use another --checker."
        raise DataError("E05", field, what)
    if checker == "yes_no" and not YES_NO.match(answer):
        what = f"'{answer[:40]}' is not yes or no, which the checker 'yes_no' needs. Use another --checker."
        raise DataError("E05", field, what)


def check_graded(trace: Trace) -> None:
    """Raises DataError (E05) for a record that ends with its question if its checker is unknown or cannot grade its
    answer."""
    if trace.answer is None or trace.messages[-1].role != "user":
        return
    try:
        check_checker(trace.checker)
    except ValueError as error:
        raise DataError("E05", "checker", str(error)) from None
    check_gold(trace.answer, trace.checker, "answer")


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


def check_answered(trace: Trace) -> None:
    """Raises DataError (E19) for a training record that supervised training has nothing to learn from."""
    if trace.split in ("train", "val") and trace.messages[-1].role != "assistant":
        raise DataError(
            "E19",
            "messages",
            "no assistant turn at the end, so supervised training has nothing to learn from it. Use it with train.rl, or "
            "leave it out.",
        )


def trainable(
    method: str, encode: Callable[[Trace], Any], step: Callable[[Trace], object], longest: int | None = None
) -> Callable[[Trace], None]:
    """A check of traces. It raises DataError: E19 or E26 for a training record that supervised training of ``method``
    would refuse, E24 for a record of more than ``longest`` positions.

    Every record is encoded. A training ``step`` is tried once for each order of roles and parts, because it takes longer
    and refuses by these.
    """
    refusals: dict[tuple, str] = {}

    def check(trace: Trace) -> None:
        is_taught = trace.split in ("train", "val")
        if is_taught:
            check_answered(trace)
        parts = tuple((message.role, *map(type, message.content)) for message in trace.messages)
        row, reason = attempt(encode, trace)
        if not reason and is_taught:
            if parts not in refusals:
                refusals[parts] = attempt(step, trace)[1]
            reason = refusals[parts]
        if reason and is_taught:
            raise DataError("E26", "messages", f"{method} cannot be trained on it: {reason}")
        if row is not None and longest is not None and len(row.ids) > longest:
            raise DataError(
                "E24",
                "messages",
                f"{len(row.ids):,} positions, limit {longest:,}. Shorten the row, use smaller images or remove it.",
            )

    return check


def attempt(function: Callable[[Trace], Any], trace: Trace) -> tuple[Any, str]:
    """What ``function`` makes of a trace, and why it refuses it (empty if it does not)."""
    try:
        return function(trace), ""
    except ValueError as error:
        return None, str(error)
    except Exception as error:  # a method of a user may raise anything
        return None, f"{type(error).__name__} {error}".strip() + ". Leave the record out."
