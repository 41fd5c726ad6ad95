"""Against published table values and plain recomputation."""

import time
from math import comb

import numpy as np
import pytest

from eval.statistics import (
    cluster_bootstrap,
    clustered_share,
    constant_interval,
    holm,
    mcnemar,
    paired_bootstrap,
    pass_at_k,
    wilson,
)


@pytest.mark.parametrize(
    "successes, n, low, high",
    [
        (153, 191, 0.7387, 0.8515),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilson_tables(successes, n, low, high):
    interval = wilson(successes, n)
    assert interval.estimate == successes / n
    assert interval.low == pytest.approx(low, abs=6e-4) and interval.high == pytest.approx(high, abs=6e-4)


def test_wilson_at_four_fifths_of_191():
    interval = wilson(0.8 * 191, 191)
    assert (round(100 * interval.low, 1), round(100 * interval.high, 1)) == (73.8, 85.1)


def test_wilson_is_symmetric_and_holds_the_estimate():
    for n in (1, 7, 500):
        for s in range(0, n + 1, max(1, n // 7)):
            a, b = wilson(s, n), wilson(n - s, n)
            assert 0 <= a.low <= a.estimate <= a.high <= 1
            assert a.low == pytest.approx(1 - b.high, abs=1e-12)


@pytest.mark.parametrize("successes, n", [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses(successes, n):
    with pytest.raises(ValueError, match="is not a proportion"):
        wilson(successes, n)


def pairs(b, c, both=3, neither=4):
    first = [1] * b + [0] * c + [1] * both + [0] * neither
    second = [0] * b + [1] * c + [1] * both + [0] * neither
    return first, second


@pytest.mark.parametrize(
    "b, c, p",
    [
        (0, 0, 1.0),
        (5, 0, 0.0625),
        (0, 6, 0.03125),
        (1, 9, 0.021484375),
        (5, 5, 1.0),
        (10, 2, 0.03857421875),
        (21, 9, 0.042773945),  # binomial tables, n = 30
    ],
)
def test_mcnemar_tables(b, c, p):
    result = mcnemar(*pairs(b, c))
    assert (result.only_first, result.only_second) == (b, c) and result.p == pytest.approx(p, rel=1e-7)


def test_mcnemar_stays_exact_with_many_pairs():
    result = mcnemar(*pairs(1100, 1000))
    expected = 2 * sum(comb(2100, i) for i in range(1001)) / 2**2100
    assert result.p == expected and 0.02 < result.p < 0.05


def test_mcnemar_refuses_scores():
    with pytest.raises(ValueError, match="right or wrong"):
        mcnemar([0.5, 1], [0, 1])


def test_paired_bootstrap_agrees_with_the_normal_interval_and_is_seeded():
    generator = np.random.default_rng(1)
    base = generator.random(500)
    first, second = (base < 0.8).astype(int), np.roll(base, 40)
    interval = paired_bootstrap(first, second)
    difference = first - second
    half = 1.96 * difference.std() / 500**0.5
    assert interval.estimate == pytest.approx(difference.mean())
    assert interval.low == pytest.approx(difference.mean() - half, abs=0.004)
    assert interval.high == pytest.approx(difference.mean() + half, abs=0.004)
    assert interval == paired_bootstrap(first, second) and interval != paired_bootstrap(first, second, seed=1)


@pytest.mark.parametrize(("n", "low"), [(8, 0.6306), (20, 0.8316), (100, 0.9638)])
def test_all_of_n_is_not_certain(n, low):
    """Clopper and Pearson's intervals of n of n, from tables; a difference has twice the range."""
    found = constant_interval(1, n, 0, 1)
    assert found.high == 1 and found.low == pytest.approx(low, abs=1e-4)
    gain = paired_bootstrap([1] * n, [0] * n)
    assert gain.estimate == gain.high == 1 and gain.low == pytest.approx(2 * low - 1, abs=2e-4)
    none = paired_bootstrap([1] * n, [1] * n)
    assert none.estimate == 0 and none.high == -none.low == pytest.approx(1 - low, abs=1e-4)
    twice = paired_bootstrap([1] * 2 * n, [0] * 2 * n, [*range(n)] * 2)
    assert twice == gain, "clusters count, not items"


def test_shares_of_clusters_have_no_certain_ends():
    assert clustered_share([1, 0, 1], list("abc")) == wilson(2, 3)
    assert clustered_share([1] * 8, list("aabbccdd")) == wilson(4, 4)
    assert clustered_share([1, 1, 0, 0], list("aabb")) == cluster_bootstrap([1, 1, 0, 0], list("aabb"))
    assert clustered_share([1, 0, 1, 0], [1, 1, 2, 2]) == wilson(1, 2), "clusters that agree have no spread"


def test_cluster_bootstrap_covers_at_its_rate():
    generator, covered = np.random.default_rng(3), 0
    for seed in range(200):
        values = generator.normal(0.3, 1, 100)
        interval = cluster_bootstrap(values, range(100), resamples=400, seed=seed)
        covered += interval.low <= 0.3 <= interval.high
    assert 178 <= covered <= 198


def test_clusters_widen_the_interval():
    generator = np.random.default_rng(2)
    base = (generator.random(100) < 0.6).astype(float)
    values, labels = np.repeat(base, 4), [f"question {i}" for i in np.repeat(np.arange(100), 4)]
    rows = cluster_bootstrap(values, np.arange(400))
    whole = cluster_bootstrap(values, labels)
    assert (whole.high - whole.low) / (rows.high - rows.low) == pytest.approx(2, rel=0.1)
    assert whole.estimate == rows.estimate == values.mean()
    assert paired_bootstrap(values, np.zeros(400), labels) == whole


def test_clusters_of_unequal_size_weigh_by_item():
    interval = cluster_bootstrap([1, 1, 1, 0], ["a", "a", "a", "b"])
    assert interval == (0.75, 0.0, 1.0)


def test_ten_thousand_resamples_of_1500_items_take_about_a_second():
    start = time.perf_counter()
    paired_bootstrap(np.ones(1500), np.zeros(1500))
    assert time.perf_counter() - start < 5


def test_holm():
    adjusted = holm([0.01, 0.04, 0.03, 0.005])  # the usual worked example
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])
    assert holm([0.02]) == pytest.approx([0.02])


@pytest.mark.parametrize(
    "call",
    [
        lambda: cluster_bootstrap([], []),
        lambda: cluster_bootstrap([1.0, float("nan")], [0, 1]),
        lambda: cluster_bootstrap([1.0, 2.0], [0]),
        lambda: paired_bootstrap([1, 0], [1]),
        lambda: paired_bootstrap([1, 2], [1, 0]),
        lambda: holm([1.5]),
        lambda: pass_at_k(3, 1, 4),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(ValueError):
        call()


def test_pass_at_k():
    assert pass_at_k(10, 3, 1) == pytest.approx(0.3)
    assert pass_at_k(10, 3, 5) == pytest.approx(1 - comb(7, 5) / comb(10, 5))
    assert pass_at_k(4, 4, 4) == 1 and pass_at_k(4, 0, 4) == 0
