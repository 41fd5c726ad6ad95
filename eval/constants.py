"""The best constant answer: what a model scores that gives one answer to every question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import mean

from .items import EvalItem
from .scoring import RULES, judge

MOST = 8  # the most frequent gold answers, which are tried


def best_constant(items: Sequence[EvalItem]) -> float:
    """The largest share of items that one frequent gold answer solves."""
    frequent = [answer for answer, _ in Counter(item.answer for item in items).most_common(MOST)]
    return max(mean(solves(answer, item) for item in items) for answer in frequent)


def solves(answer: str, item: EvalItem) -> bool:
    """Whether the gold answer of another item solves an item. Rules that verify, as those of puzzles, may accept more than
    their own gold answer."""
    if answer == item.answer or item.checker in RULES:
        return answer == item.answer
    return judge(f"\\boxed{{{answer}}}", item).is_right


def with_constants(items: Sequence[EvalItem], results: list[dict]) -> list[dict]:
    """Result rows with ``constant``: of accuracies, the best constant answer of the same items; of the mean of
    categories, the mean of the best constants of the tasks. None for other metrics."""
    by_task: dict[str, list[EvalItem]] = {}
    for item in items:
        by_task.setdefault(item.task, []).append(item)
    best = {task: best_constant(chosen) for task, chosen in by_task.items()}
    shares = {("all", "accuracy"): best_constant(items), ("all", "category_mean"): mean(best.values())}
    shares |= {(task, "accuracy"): share for task, share in best.items() if task != "all"}
    constants = {key: round(share, 4) for key, share in shares.items()}
    return [row | {"constant": constants.get((row["task"], row["metric"]))} for row in results]
