"""Systems compared on the same items: shares with intervals, paired differences to the first, corrected p-values.

A system is a result file, or an arm of train.compare with its seeds. Intervals and tests resample items (whole clusters
where items depend on each other), all seeds of an item together: they cover items, not seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import mean

import numpy as np

from .statistics import Interval, clustered_share, holm, paired_bootstrap, paired_p, wilson

COSTS = ("latents", "tokens", "passes", "pictures", "seconds")
#: columns of the probes: title -> path in the probes of an arm
PROBES = {
    "probed": ("as_generated", "accuracy"),
    "noise": ("noise", "accuracy"),
    "zero": ("zero", "accuracy"),
    "foreign": ("foreign", "accuracy"),
    "follows": ("foreign", "follow_rate"),
    "follows by chance": ("foreign", "follow_by_chance"),
    "oracle": ("oracle", "accuracy"),
    "removed": ("removed", "accuracy"),
}


@dataclass(frozen=True)
class System:
    """What is compared.

    Args:
        scores: (items, seeds) in 0-1, the items in the same order in every system; None if the file has none.
        by_seed: the share of each seed.
        clusters: a label per item; None where items are independent.
        costs: means per item of ``COSTS``, as far as they were measured.
        probes: means over seeds of ``PROBES``, as far as they were measured.
    """

    name: str
    n: int
    by_seed: dict[int | None, float]
    scores: np.ndarray | None = None
    clusters: Sequence | None = None
    costs: dict[str, float] = field(default_factory=dict)
    probes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """A line of the table. ``difference`` (this minus the first) and ``p`` (after Holm's correction over the lines) are
    None for the first system, and without single items."""

    system: System
    share: Interval
    difference: Interval | None = None
    p: float | None = None


def compare_systems(systems: Sequence[System]) -> list[Line]:
    """One line a system; the first is what the others are compared with."""
    first, *others = systems
    tests = {}
    for system in others:
        if first.scores is not None and system.scores is not None:
            pair = system.scores.mean(1), first.scores.mean(1)
            tests[system.name] = (paired_bootstrap(*pair, first.clusters), paired_p(*pair, first.clusters))
    corrected = dict(zip(tests, holm([p for _, p in tests.values()]), strict=True)) if tests else {}
    return [
        Line(system, share_of(system), tests[system.name][0], float(corrected[system.name]))
        if system.name in tests
        else Line(system, share_of(system))
        for system in systems
    ]


def share_of(system: System) -> Interval:
    """The mean over items and seeds. Without single items, seeds count as independent."""
    if system.scores is None:
        count = system.n * len(system.by_seed)
        return wilson(sum(value * system.n for value in system.by_seed.values()), count)
    seeds = system.scores.shape[1]
    labels = range(system.n) if system.clusters is None else system.clusters
    return clustered_share(system.scores.ravel(), np.repeat(np.asarray(labels), seeds))


# -- arms of train.compare ---------------------------------------------------------------------------------------------
def metric_of(rows: Sequence[dict]) -> str:
    """The headline of the rows of a comparison: their first entry with a value."""
    return next(name for name, entry in rows[0].items() if isinstance(entry, dict) and "value" in entry)


def systems_of_arms(rows: Sequence[dict], order: Sequence[str] = ()) -> list[System]:
    """The arms of the rows of train.compare, with their seeds. ``order`` names the arms that come first.

    Raises:
        ValueError: two arms have another number of items.
    """
    metric = metric_of(rows)
    arms: dict[str, list[dict]] = {name: [] for name in order}
    for row in rows:
        arms.setdefault(row["arm"], []).append(row)
    arms = {name: found for name, found in arms.items() if found}
    counts = {(row["n"], len(row.get("right", "0" * row["n"]))): row["arm"] for row in rows}
    if len(counts) > 1 or any(n != given for n, given in counts):
        raise ValueError(
            f"arms {' and '.join(map(repr, counts.values()))} were measured on other items. Leave one of them out."
        )
    return [arm_of(name, found, metric) for name, found in arms.items()]


def arm_of(name: str, rows: list[dict], metric: str) -> System:
    right = [row.get("right") for row in rows]
    costs = {cost: f"{'words' if cost == 'tokens' else cost}_per_answer" for cost in COSTS}
    measured = {
        **{cost: [row.get(key) for row in rows] for cost, key in costs.items()},
        **{title: [_entry(row.get("probes"), path) for row in rows] for title, path in PROBES.items()},
    }
    means = {title: mean(known) for title, found in measured.items() if (known := [v for v in found if v is not None])}
    return System(
        name,
        rows[0]["n"],
        {row["seed"]: row[metric]["value"] for row in rows},
        None if None in right else np.array([[float(mark) for mark in marks] for marks in right]).T,
        costs={key: means[key] for key in COSTS if key in means},
        probes={key: means[key] for key in PROBES if key in means},
    )


def _entry(value: dict | None, path: Sequence[str]) -> float | None:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value
