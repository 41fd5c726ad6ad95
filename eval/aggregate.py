"""Result rows of a benchmark: shares with intervals that respect which items are dependent."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from math import prod

from latent_reason.json_files import fields_of, read_json

from .items import EvalItem
from .statistics import Interval, clustered_share, stratified_bootstrap, wilson


def result_rows(
    items: Sequence[EvalItem],
    is_right: Sequence[bool],
    other_checks: Sequence[dict[str, bool]],
    metric: str,
    cluster_metric: str | None,
) -> list[dict]:
    """One row per task and one for ``all``, then rows of further checkers and of clusters that are right as a whole.

    Args:
        is_right: one entry per item.
        other_checks: per item, name of a further checker -> is right.
        metric: name of the headline; "category_mean" is the mean over tasks.
        cluster_metric: name of the share of clusters that are right as a whole; None to leave it out.
    """
    plain = metric.replace("category_mean", "accuracy")
    tasks = list(dict.fromkeys(item.task for item in items))
    sets = {task: [i for i, item in enumerate(items) if item.task == task] for task in tasks if len(tasks) > 1}
    sets["all"] = list(range(len(items)))
    out = []
    for task, indices in sets.items():
        chosen, values = [items[i] for i in indices], [float(is_right[i]) for i in indices]
        out.append(result_row(task, plain, interval(chosen, values), len(indices), chance(chosen)))
        for name in other_checks[indices[0]]:
            if all(name in other_checks[i] for i in indices):
                checked = [float(other_checks[i][name]) for i in indices]
                out.append(result_row(task, name, interval(chosen, checked), len(indices), None))
        if cluster_metric:
            out += cluster_row(task, cluster_metric, chosen, values)
    if metric.startswith("category_mean") and len(tasks) > 1:
        share, chance_level = category_mean(items, [float(value) for value in is_right])
        out.append(result_row("all", metric, share, len(items), chance_level))
    return out


def result_row(task: str, metric: str, share: Interval, n: int, chance_level: float | None) -> dict:
    return {
        "task": task,
        "metric": metric,
        "n": n,
        "value": round(share.estimate, 4),
        "low": round(share.low, 4),
        "high": round(share.high, 4),
        "chance": None if chance_level is None else round(chance_level, 4),
    }


def chance(items: Sequence[EvalItem]) -> float | None:
    """The mean chance level of the items; None if one of them has none."""
    each = [item.chance for item in items]
    return None if None in each else sum(each) / len(each)


def interval(items: Sequence[EvalItem], values: Sequence[float]) -> Interval:
    """The interval of a share of items, whose clusters are those of the items."""
    return clustered_share(values, [item.cluster for item in items])


def cluster_row(task: str, metric: str, items: Sequence[EvalItem], values: Sequence[float]) -> list[dict]:
    """The share of complete clusters (as large as the largest) whose items are all right."""
    clusters = defaultdict(list)
    for item, value in zip(items, values, strict=True):
        clusters[item.cluster].append((item, value))
    largest = max(map(len, clusters.values()))
    complete = [cluster for cluster in clusters.values() if len(cluster) == largest > 1]
    if not complete:
        return []
    chances = [prod(item.chance for item, _ in cluster) for cluster in complete if all(i.chance for i, _ in cluster)]
    chance_level = sum(chances) / len(chances) if len(chances) == len(complete) else None
    num_right = sum(all(value for _, value in cluster) for cluster in complete)
    return [result_row(task, metric, wilson(num_right, len(complete)), len(complete), chance_level)]


def category_mean(items: Sequence[EvalItem], values: Sequence[float]) -> tuple[Interval, float | None]:
    """The unweighted mean of the tasks' accuracies, and of their chance levels."""
    sizes = Counter(item.task for item in items)
    weights = [len(items) / len(sizes) / sizes[item.task] for item in items]
    each = [item.chance for item in items]
    chance_level = None if None in each else sum(w * c for w, c in zip(weights, each, strict=True)) / len(items)
    if len(set(values)) == 1 or len(set(sizes.values())) == 1:
        return interval(items, values), chance_level
    clusters = [item.cluster for item in items]
    share = stratified_bootstrap(values, clusters, [item.task for item in items])
    count = len(set(clusters))  # no spread if each task is all right or all wrong
    return (share if share.low < share.high else wilson(share.estimate * count, count)), chance_level


def retention(seeing: Sequence[dict], blind: Sequence[dict]) -> list[dict]:
    """Share of its accuracy that a model keeps without images: blind / seeing, and corrected for chance c
    (blind - c) / (seeing - c); None if the accuracy with images is at or below chance (Thinking with Deltas)."""
    with_images = {(r["task"], r["metric"]): r for r in seeing}
    out = []
    for r in blind:
        if not (reference := with_images.get((r["task"], r["metric"]))):
            continue
        c, full = r["chance"], reference["value"]
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


def read_seeing(path: str) -> dict:
    """The result of a run with images. Raises FileNotFoundError or ValueError if it is no result of eval.benchmark."""
    expected = "the FILE.json of eval.benchmark"
    report = read_json(path, expected, ("benchmark", "protocol", "results"))
    with fields_of(path, expected):
        report["protocol"].keys()
        retention(report["results"], report["results"])
    return report


def check_comparable(report: dict, path: str, name: str, protocol: dict) -> None:
    """Raises ValueError if the benchmark or the protocol of a run with images differs from those of a run without."""
    other = report["protocol"]
    differ = [key for key in sorted({*other, *protocol} - {"blind"}) if other.get(key) != protocol.get(key)]
    if report["benchmark"] != name or other.get("blind") or differ:
        what = f"{', '.join(differ)} differ" if differ else "it is of another benchmark or without images"
        raise ValueError(f"'{path}' cannot be compared: {what}. Run it again with images and the same options.")
