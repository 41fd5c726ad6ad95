"""Result rows of a benchmark: shares with intervals that know which items belong together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import prod

from .items import EvalItem
from .statistics import Interval, cluster_bootstrap, stratified_bootstrap, wilson


def rows(
    items: Sequence[EvalItem], right: Sequence[bool], also: Sequence[dict[str, bool]], metric: str, grouped: str | None
) -> list[dict]:
    """A row a task and one for ``all``; then further checkers, and clusters that are right as a whole."""
    plain = "accuracy" if metric == "category_mean" else metric
    tasks = list(dict.fromkeys(item.task for item in items))
    sets = {task: [i for i, item in enumerate(items) if item.task == task] for task in tasks if len(tasks) > 1}
    sets["all"] = list(range(len(items)))
    out = []
    for task, at in sets.items():
        chosen, values = [items[i] for i in at], [float(right[i]) for i in at]
        out.append(row(task, plain, interval(chosen, values), len(at), chance(chosen)))
        for name in also[at[0]]:
            if all(name in also[i] for i in at):
                out.append(row(task, name, interval(chosen, [float(also[i][name]) for i in at]), len(at), None))
        if grouped:
            out += whole(task, grouped, chosen, values)
    if metric == "category_mean" and len(tasks) > 1:
        found, guess = category_mean(items, [float(one) for one in right])
        out.append(row("all", metric, found, len(items), guess))
    return out


def row(task: str, metric: str, found: Interval, n: int, guess: float | None) -> dict:
    return {
        "task": task,
        "metric": metric,
        "n": n,
        "value": round(found.estimate, 4),
        "low": round(found.low, 4),
        "high": round(found.high, 4),
        "chance": None if guess is None else round(guess, 4),
    }


def chance(items: Sequence[EvalItem]) -> float | None:
    """The mean of the items' chances; None where one of them has none."""
    each = [item.chance for item in items]
    return None if None in each else sum(each) / len(each)


def interval(items: Sequence[EvalItem], values: Sequence[float]) -> Interval:
    """Wilson's where items are independent, else a bootstrap of whole clusters; where that has no spread (all are
    right, or none), Wilson's with a count of clusters."""
    clusters = [item.cluster for item in items]
    if len(set(clusters)) == len(items):
        return wilson(sum(values), len(values))
    if len(set(values)) == 1:
        return wilson(values[0] * len(set(clusters)), len(set(clusters)))
    return cluster_bootstrap(values, clusters)


def whole(task: str, metric: str, items: Sequence[EvalItem], values: Sequence[float]) -> list[dict]:
    """The share of clusters of which every item is right, among those that are complete (as large as the largest)."""
    clusters = defaultdict(list)
    for item, one in zip(items, values, strict=True):
        clusters[item.cluster].append((item, one))
    largest = max(map(len, clusters.values()))
    complete = [one for one in clusters.values() if len(one) == largest > 1]
    if not complete:
        return []
    guesses = [prod(item.chance for item, _ in one) for one in complete if all(item.chance for item, _ in one)]
    guess = sum(guesses) / len(guesses) if len(guesses) == len(complete) else None
    won = sum(all(value for _, value in one) for one in complete)
    return [row(task, metric, wilson(won, len(complete)), len(complete), guess)]


def category_mean(items: Sequence[EvalItem], values: Sequence[float]) -> tuple[Interval, float | None]:
    """The mean of the tasks' accuracies, each weighing the same, and that of their chances."""
    sizes = Counter(item.task for item in items)
    weights = [len(items) / len(sizes) / sizes[item.task] for item in items]
    each = [item.chance for item in items]
    guess = None if None in each else sum(w * c for w, c in zip(weights, each, strict=True)) / len(items)
    if len(set(values)) == 1 or len(set(sizes.values())) == 1:
        return interval(items, values), guess
    clusters = [item.cluster for item in items]
    found = stratified_bootstrap(values, clusters, [item.task for item in items])
    count = len(set(clusters))  # each task all right or all wrong has no spread
    return (found if found.low < found.high else wilson(found.estimate * count, count)), guess


def retention(seeing: Sequence[dict], blind: Sequence[dict]) -> list[dict]:
    """How much of its accuracy a model keeps without pictures: blind / seeing, and with chance c
    (blind - c) / (seeing - c); None where the model that sees is at chance or below (Thinking with Deltas)."""
    seen = {(r["task"], r["metric"]): r for r in seeing}
    out = []
    for r in blind:
        if not (one := seen.get((r["task"], r["metric"]))):
            continue
        c, full = r["chance"], one["value"]
        out.append(
            {
                "task": r["task"],
                "metric": r["metric"],
                "blind": r["value"],
                "seeing": full,
                "retention": round(r["value"] / full, 4) if full else None,
                "corrected": round((r["value"] - c) / (full - c), 4) if c is not None and full > c else None,
            }
        )
    return out
