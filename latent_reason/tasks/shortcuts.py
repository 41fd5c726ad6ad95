"""Predictors that read the question alone. A task needs its pictures only if they do no better than a constant answer:
``python -m eval.task_audit`` measures it, and the task contract tests it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from .base import Item, Task

GAIN = 0.03  # accuracy that a question may add to the best constant answer
COMMON, BEAM, PIECES, LONGEST, TRIED = 24, 6, 8, 14, 300  # of the search for a constant answer


def right(task: Task, answers: Iterable[str], items: Sequence[Item]) -> np.ndarray:
    """(n,) 1 where the task's rule accepts an item's answer."""
    return np.array(
        [task.check(f"\\boxed{{{answer}}}", item.meta).ok for answer, item in zip(answers, items, strict=True)], float
    )


def constant(task: Task, items: Sequence[Item], longest: int = LONGEST) -> str:
    """The best constant answer found: one of the commonest, or what grows out of them by up to ``longest`` pieces."""
    common = [answer for answer, _ in Counter(item.answer for item in items).most_common(COMMON)]
    split = re.compile(r"[,;](?![^(]*\))")
    pieces = [p for p, _ in Counter(p for item in items for p in split.split(item.answer)).most_common(PIECES)]
    marks, worth = split.findall(" ".join(common)), {}

    def best(answers: Iterable[str], width: int) -> list[str]:
        for answer in (answers := list(dict.fromkeys(answers))):
            if answer not in worth:
                worth[answer] = right(task, [answer] * len(items[:TRIED]), items[:TRIED]).mean()
        return sorted(answers, key=lambda a: -worth[a])[:width]

    beam = best(common, BEAM)
    for _ in range(longest if marks and worth[beam[0]] else 0):
        beam = best([*(f"{answer}{marks[0]}{piece}" for answer in beam for piece in pieces), *beam], BEAM)
    return max(best(worth, BEAM), key=lambda a: right(task, [a] * len(items), items).mean())


def by_question(train: Sequence[Item], items: Sequence[Item], otherwise: Sequence[str]) -> list[str]:
    """For each item the commonest answer to its question."""
    known: dict[str, Counter] = defaultdict(Counter)
    for item in train:
        known[item.question][item.answer] += 1
    return [
        known[i.question].most_common(1)[0][0] if i.question in known else other
        for i, other in zip(items, otherwise, strict=True)
    ]
