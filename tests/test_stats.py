"""Against textbook or hand-computed values, and small seeded simulations of coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ccai.stats import (
    holm,
    mcnemar_exact,
    mean_interval,
    paired_difference,
    proportion_interval,
)

SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
"""Student (1908), "The probable error of a mean": extra hours of sleep by drug, ten patients."""


def test_mean_interval_of_students_sleep_data() -> None:
    # R: t.test(extra ~ group, data = sleep, paired = TRUE) prints 0.7001142 and 2.4598858 (signs turned).
    interval = mean_interval(SLEEP)
    assert interval.n == 10
    assert interval.estimate == pytest.approx(1.58)
    assert (interval.low, interval.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)


def test_wider_confidence_is_a_wider_interval() -> None:
    assert mean_interval(SLEEP, confidence=0.99).low < mean_interval(SLEEP).low


def test_clustered_interval_by_hand() -> None:
    # Residuals sum to −4 and 4, so SE² = G/(G−1) · (4² + 4²) / n² = 2 · 32 / 16 = 4; t(.975, 1) = 12.7062.
    interval = mean_interval([1, 2, 5, 6], clusters=["x", "x", "y", "y"])
    assert interval.estimate == 3.5
    assert interval.high - interval.estimate == pytest.approx(2 * 12.7062, abs=1e-3)
    assert interval.n == 4


def test_one_value_per_cluster_is_the_plain_interval() -> None:
    assert mean_interval(SLEEP, clusters=list(range(10))) == pytest.approx(mean_interval(SLEEP))


def test_cluster_labels_need_no_order() -> None:
    together = mean_interval([1, 2, 5, 6, 4], clusters=["p", "p", "q", "q", "r"])
    mixed = mean_interval([1, 5, 4, 2, 6], clusters=["p", "q", "r", "p", "q"])
    assert mixed == pytest.approx(together)


@pytest.mark.parametrize(
    ("values", "clusters"),
    [
        ([0.7], None),
        ([0.1] * 7, None),
        ([0.0, 1.0, 0.5], ["same"] * 3),
        ([0.0, 1.0, 0.0, 1.0], ["p", "p", "q", "q"]),
    ],
    ids=["one value", "equal values", "one cluster", "balanced clusters"],
)
def test_no_spread_has_no_bounds(values: list[float], clusters: list[str] | None) -> None:
    interval = mean_interval(values, clusters=clusters)
    assert interval.estimate == pytest.approx(sum(values) / len(values))
    assert math.isnan(interval.low) and math.isnan(interval.high)


def test_mean_interval_covers_at_its_level() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        interval = mean_interval(rng.normal(3.0, 2.0, size=12).tolist())
        covered += interval.low <= 3.0 <= interval.high
    # Binomial standard error of .95 over 1000 is .007: four of them either side.
    assert 0.92 <= covered / 1000 <= 0.98


def test_clusters_cover_where_the_plain_interval_does_not() -> None:
    rng = np.random.default_rng(2)
    labels = [prompt for prompt in range(25) for _ in range(8)]
    plain = clustered = 0
    for _ in range(300):
        values = (rng.normal(size=25).repeat(8) + rng.normal(scale=0.5, size=200)).tolist()
        low, high = mean_interval(values)[1:3]
        plain += low <= 0 <= high
        low, high = mean_interval(values, clusters=labels)[1:3]
        clustered += low <= 0 <= high
    assert plain / 300 < 0.7
    assert clustered / 300 > 0.9


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (5, 10, 0.1871, 0.8129),  # Clopper & Pearson (1934) tables
        (0, 10, 0.0, 1 - 0.025**0.1),  # closed form at the edge
        (10, 10, 0.025**0.1, 1.0),
        (0, 1, 0.0, 0.975),
    ],
)
def test_proportion_interval(successes: int, n: int, low: float, high: float) -> None:
    interval = proportion_interval(successes, n)
    assert interval.estimate == successes / n
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-4)
    assert interval.n == n


def test_proportion_interval_covers_at_least_its_level() -> None:
    # Exact coverage, no simulation: sum the binomial probabilities of the counts whose interval holds p.
    n, p = 15, 0.1
    inside = 0.0
    for k in range(n + 1):
        interval = proportion_interval(k, n)
        if interval.low <= p <= interval.high:
            inside += math.comb(n, k) * p**k * (1 - p) ** (n - k)
    assert inside >= 0.95


def test_paired_difference_by_hand() -> None:
    # Differences 1, 2, 3: mean 2, s = 1. Variances 1 and 4. df = 2, so J = 1 − 3/7 = 4/7.
    result = paired_difference([1, 2, 3], [2, 4, 6], seed=0)
    assert result[:4] == (3, 2.0, 4.0, 2.0)
    assert result.d_av == pytest.approx(2 / math.sqrt(2.5) * 4 / 7)
    assert result.d_z == pytest.approx(2 * 4 / 7)
    assert result.low == 1.0 and result.high == 3.0  # P(all three draws the smallest) = 1/27 > .025


def test_paired_difference_has_the_sign_of_b_minus_a() -> None:
    there = paired_difference([0] * 10, SLEEP, seed=3)
    back = paired_difference(SLEEP, [0] * 10, seed=3)
    assert there.difference == pytest.approx(1.58) and there.low > 0
    assert back.difference == pytest.approx(-1.58) and back.high < 0
    assert back.d_z == pytest.approx(-there.d_z)


def test_paired_difference_is_deterministic() -> None:
    zeros = [0.0] * 10
    first = paired_difference(zeros, SLEEP, seed=5, resamples=500)
    assert first == paired_difference(zeros, SLEEP, seed=5, resamples=500)
    assert first != paired_difference(zeros, SLEEP, seed=6, resamples=500)


def test_equal_differences_have_no_width() -> None:
    result = paired_difference([0.1, 0.2, 0.7], [0.2, 0.3, 0.8], seed=0)
    assert result.low == result.high == result.difference == pytest.approx(0.1)
    assert math.isnan(result.d_z)
    assert math.isfinite(result.d_av)


def test_no_variance_at_all_has_no_effect_size() -> None:
    result = paired_difference([0.1] * 7, [0.3] * 7, seed=0)
    assert math.isnan(result.d_av) and math.isnan(result.d_z)


def test_one_pair_has_no_bounds_and_two_no_effect_size() -> None:
    one = paired_difference([0.2], [0.5], seed=0)
    assert one.difference == pytest.approx(0.3)
    assert all(math.isnan(value) for value in one[4:])
    two = paired_difference([0, 1], [1, 4], seed=0)
    assert (two.low, two.high) == (1.0, 3.0)
    assert math.isnan(two.d_av) and math.isnan(two.d_z)


def test_paired_bootstrap_covers_nearly_at_its_level() -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for seed in range(300):
        shared = rng.normal(scale=3.0, size=40)
        a, b = shared + rng.normal(size=40), shared + 0.5 + rng.normal(size=40)
        result = paired_difference(a.tolist(), b.tolist(), seed=seed, resamples=1000)
        covered += result.low <= 0.5 <= result.high
    assert 0.90 <= covered / 300 <= 0.985


def test_mcnemar_by_hand() -> None:
    # 2 against 8 of 10 disagreeing pairs: p = 2 · (1 + 10 + 45) / 2¹⁰ = 0.109375; agreeing pairs don't count.
    a = [1] * 2 + [0] * 8 + [1] * 30 + [0] * 5
    b = [0] * 2 + [1] * 8 + [1] * 30 + [0] * 5
    assert mcnemar_exact(a, b) == pytest.approx(0.109375)
    assert mcnemar_exact(b, a) == pytest.approx(0.109375)


def test_mcnemar_without_disagreement() -> None:
    assert mcnemar_exact([True, False], [True, False]) == 1.0


def test_holm_by_hand() -> None:
    # Ascending .005·4, .01·3, .03·2 and .04·1, which may not fall below the .06 before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="non-empty"):
        mean_interval([])
    with pytest.raises(ValueError, match="nan"):
        mean_interval([0.1, math.nan])
    with pytest.raises(ValueError, match="confidence"):
        mean_interval([0.1, 0.2], confidence=95)
    with pytest.raises(ValueError, match="cluster label"):
        mean_interval([0.1, 0.2], clusters=["p"])
    with pytest.raises(ValueError, match="successes"):
        proportion_interval(3, 2)
    with pytest.raises(ValueError, match="successes"):
        proportion_interval(0, 0)
    with pytest.raises(ValueError, match="confidence"):
        proportion_interval(1, 2, confidence=1.0)
    with pytest.raises(ValueError, match="equally long"):
        paired_difference([1, 2], [1], seed=0)
    with pytest.raises(ValueError, match="infinity"):
        paired_difference([1, math.inf], [1, 2], seed=0)
    with pytest.raises(ValueError, match="resamples"):
        paired_difference([1, 2], [1, 3], seed=0, resamples=0)
    with pytest.raises(ValueError, match="0 or 1"):
        mcnemar_exact([0, 2], [0, 1])
    with pytest.raises(ValueError, match="equally long"):
        mcnemar_exact([0], [0, 1])
    with pytest.raises(ValueError, match="0, 1"):
        holm([0.5, 1.2])
    with pytest.raises(ValueError, match="non-empty"):
        holm([])
