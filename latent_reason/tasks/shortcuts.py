"""Predictors that use only the question. A task requires its images if these predictors do not beat a constant answer.
``python -m eval.task_audit`` measures this, and the task contract tests it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from .base import Task
from .item import Item

MAX_GAIN = 0.03  # largest gain in accuracy over the best constant answer
NUM_COMMON, BEAM_WIDTH, NUM_PIECES, MAX_PIECES, NUM_SEARCH_ITEMS = 24, 6, 8, 14, 300  # search for a constant answer


def check_answers(task: Task, answers: Iterable[str], items: Sequence[Item]) -> np.ndarray:
    """(n,) 1 if the task's rule accepts the answer of an item."""
    return np.array(
        [task.check(f"\\boxed{{{answer}}}", item.meta).ok for answer, item in zip(answers, items, strict=True)], float
    )


def best_constant(task: Task, items: Sequence[Item], max_pieces: int = MAX_PIECES) -> str:
    """The best constant answer found: a frequent one, or one extended by up to ``max_pieces`` pieces (beam search)."""
    common = [answer for answer, _ in Counter(item.answer for item in items).most_common(NUM_COMMON)]
    split = re.compile(r"[,;](?![^(]*\))")
    pieces = [p for p, _ in Counter(p for item in items for p in split.split(item.answer)).most_common(NUM_PIECES)]
    separators, accuracy = split.findall(" ".join(common)), {}

    def keep_best(answers: Iterable[str], width: int) -> list[str]:
        for answer in (answers := list(dict.fromkeys(answers))):
            if answer not in accuracy:
                accuracy[answer] = check_answers(
                    task, [answer] * len(items[:NUM_SEARCH_ITEMS]), items[:NUM_SEARCH_ITEMS]
                ).mean()
        return sorted(answers, key=lambda a: -accuracy[a])[:width]

    beam = keep_best(common, BEAM_WIDTH)
    for _ in range(max_pieces if separators and accuracy[beam[0]] else 0):
        beam = keep_best(
            [*(f"{answer}{separators[0]}{piece}" for answer in beam for piece in pieces), *beam], BEAM_WIDTH
        )
    return max(keep_best(accuracy, BEAM_WIDTH), key=lambda a: check_answers(task, [a] * len(items), items).mean())


def answers_by_question(train: Sequence[Item], items: Sequence[Item], fallbacks: Sequence[str]) -> list[str]:
    """The most frequent train answer to each item's question, or its fallback if the question is new."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for item in train:
        counts[item.question][item.answer] += 1
    return [
        counts[i.question].most_common(1)[0][0] if i.question in counts else fallback
        for i, fallback in zip(items, fallbacks, strict=True)
    ]
