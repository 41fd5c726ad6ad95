"""Confidence intervals, paired tests and correction for multiple tests.

All shares are in 0-1. Every bootstrap takes a seed; its result is the same on every machine with the same numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 10_000
#: Fewest items for a verdict. With 50, a loss of a fifth is significant in the exact test after Holm's correction for 19
#: probes: ten items that turn wrong and none that turns right give p = 2 / 2**10 * 19 = 0.04. Fewer items miss more.
LEAST_N = 50
ALPHA = 0.05


class Interval(NamedTuple):
    """An estimate and its two-sided interval."""

    estimate: float
    low: float
    high: float


class McNemar(NamedTuple):
    """Discordant pairs: only the first (``only_first``) or only the second system is right. ``p`` is exact, two-sided."""

    only_first: int
    only_second: int
    p: float


def wilson(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of a proportion (Wilson 1927). Raises ValueError unless 0 <= successes <= n, n >= 1."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is not a proportion: 0 <= successes <= n and n >= 1 are required.")
    p, z = successes / n, NormalDist().inv_cdf((1 + confidence) / 2)
    center = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    # At the ends the exact bound is 0 or 1; rounding must not push it past the estimate.
    return Interval(p, 0.0 if successes == 0 else center - half, 1.0 if successes == n else center + half)


def mcnemar(first: ArrayLike, second: ArrayLike) -> McNemar:
    """Exact McNemar test of two systems on the same items, each given as right or wrong per item (n,)."""
    first, second = _pair(first, second)
    for values in (first, second):
        if not np.isin(values, (0, 1)).all():
            raise ValueError("McNemar's test needs right or wrong (1 or 0) per item. For scores use paired_bootstrap.")
    b, c = int(((first == 1) & (second == 0)).sum()), int(((first == 0) & (second == 1)).sum())
    n, term, tail = b + c, 1, 0
    for i in range(min(b, c) + 1):  # integers, so that it is exact at any n
        tail += term
        term = term * (n - i) // (i + 1)
    return McNemar(b, c, min(1.0, 2 * tail / 2**n))


def paired_p(first: ArrayLike, second: ArrayLike, clusters: Sequence | None = None) -> float:
    """Two-sided p-value of no difference between two systems on the same items (n,), scores in 0-1.

    McNemar's exact test where each item is right or wrong and independent. Else a permutation test: which system a cluster
    (a label per item) belongs to is drawn ``RESAMPLES`` times, so that p is at least 1 / (RESAMPLES + 1).
    """
    first, second = _pair(first, second)
    labels = np.arange(len(first)) if clusters is None else np.asarray(clusters)
    sums, sizes = _cluster_sums(first - second, labels)
    if len(sizes) == len(first) and np.isin([first, second], (0, 1)).all():
        return mcnemar(first, second).p
    generator, rows, hits = np.random.default_rng(0), max(1, 2_000_000 // len(sums)), 0
    least = abs(sums.sum()) * (1 - 1e-9)  # sums of the same numbers in another order count as equal
    for start in range(0, RESAMPLES, rows):
        signs = generator.integers(0, 2, (min(rows, RESAMPLES - start), len(sums)), dtype=np.int8) * 2 - 1
        hits += int((abs(signs @ sums) >= least).sum())
    return (1 + hits) / (1 + RESAMPLES)


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    clusters: Sequence | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Interval of mean(first) - mean(second) over the same items (n,), resampled together; scores in 0-1.

    Give ``clusters``, a label per item, where items are not independent. Where all differ by the same, resamples do too:
    then :func:`constant_interval`. Raises ValueError for scores outside of 0-1.
    """
    first, second = _pair(first, second)
    for values in (first, second):
        if values.min() < 0 or values.max() > 1:
            raise ValueError("Scores lie in 0-1. For other values use cluster_bootstrap of the differences.")
    labels = np.arange(len(first)) if clusters is None else clusters
    interval = cluster_bootstrap(first - second, labels, resamples, seed, confidence)
    if interval.low < interval.high:
        return interval
    return constant_interval(interval.estimate, len(np.unique(labels)), -1, 1, confidence)


def clustered_share(values: ArrayLike, clusters: Sequence) -> Interval:
    """Interval of the mean of scores (n,) in 0-1, given a cluster label per item: Wilson's if items are independent, else a
    bootstrap over clusters. Where resamples have no spread, Wilson's with the number of clusters as n."""
    values, count = _row(values), len(np.unique(np.asarray(clusters)))
    if count == len(values):
        return wilson(values.sum(), count)
    interval = cluster_bootstrap(values, clusters)
    return interval if interval.low < interval.high else wilson(interval.estimate * count, count)


def constant_interval(value: float, n: int, least: float, most: float, confidence: float = 0.95) -> Interval:
    """Interval of a mean of which ``n`` observations are all ``value``, in the range ``least`` to ``most``.

    Other values have a probability of at most u, the exact bound of 0 of n (Clopper & Pearson 1934), and lie at the ends
    of the range at worst. For shares this is the interval of Clopper and Pearson.
    """
    u = 1 - ((1 - confidence) / 2) ** (1 / n)
    return Interval(value, value - u * (value - least), value + u * (most - value))


def cluster_bootstrap(
    values: ArrayLike, clusters: Sequence, resamples: int = RESAMPLES, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Percentile interval of the mean of ``values`` (n,) that resamples whole clusters, given as a label per item."""
    values = _row(values)
    return _percentiles(values.mean(), _means(values, clusters, resamples, np.random.default_rng(seed)), confidence)


def stratified_bootstrap(
    values: ArrayLike,
    clusters: Sequence,
    strata: Sequence,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Percentile interval of the mean of the means of strata, given as a label per item, each weighing the same.

    Whole clusters are resampled within their stratum, so that it never leaves the range of ``values`` (n,).
    """
    values, strata = _row(values), np.asarray(strata)
    labels, generator = np.asarray(clusters), np.random.default_rng(seed)
    masks = [strata == label for label in np.unique(strata)]
    means = np.mean([_means(values[mask], labels[mask], resamples, generator) for mask in masks], axis=0)
    return _percentiles(np.mean([values[mask].mean() for mask in masks]), means, confidence)


def _means(values: np.ndarray, clusters: Sequence, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Means (resamples,) of as many draws of whole clusters."""
    sums, sizes = _cluster_sums(values, clusters)
    count = len(sizes)
    rows = max(1, 2_000_000 // count)  # draws a chunk: some 16 MB
    means = np.empty(resamples)
    for start in range(0, resamples, rows):
        sampled = generator.integers(0, count, (min(rows, resamples - start), count))  # (chunk, C)
        means[start : start + rows] = sums[sampled].sum(1) / sizes[sampled].sum(1)
    return means


def _cluster_sums(values: np.ndarray, clusters: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """(sums (C,), sizes (C,)) of the clusters."""
    labels = np.asarray(clusters)
    if labels.shape != values.shape:
        raise ValueError(f"{len(values)} values, but cluster labels of shape {labels.shape}. Give one label per item.")
    _, cluster_index = np.unique(labels, return_inverse=True)
    return np.bincount(cluster_index, weights=values), np.bincount(cluster_index).astype(float)


def _percentiles(estimate: float, means: np.ndarray, confidence: float) -> Interval:
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(estimate), float(low), float(high))


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's step-down adjusted p-values (m,), in the order given: reject where they are <= alpha (Holm 1979)."""
    p = _row(p_values)
    if ((p < 0) | (p > 1)).any():
        raise ValueError("p-values lie in 0-1.")
    order, m = np.argsort(p, kind="stable"), len(p)
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * (m - np.arange(m))))
    return adjusted


def p_text(p: float) -> str:
    """A p-value with three digits, never as 0."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased chance that one of ``k`` samples is right, from ``n`` samples with ``correct`` right (2107.03374)."""
    if not (1 <= k <= n and 0 <= correct <= n):
        raise ValueError(f"pass@{k} needs at least {k} samples and 0 <= correct <= n; got {correct} of {n}.")
    return 1 - comb(n - correct, k) / comb(n, k)


def _row(values: ArrayLike) -> np.ndarray:
    row = np.asarray(values, dtype=float)
    if row.ndim != 1 or not len(row):
        raise ValueError(f"Expected one number per item, got an array of shape {row.shape}.")
    if not np.isfinite(row).all():
        raise ValueError("NaN or infinity among the values. Leave those items out and say how many.")
    return row


def _pair(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    first, second = _row(first), _row(second)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} items. Paired statistics need the same items, in one order.")
    return first, second
