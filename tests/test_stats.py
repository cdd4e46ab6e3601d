"""Against textbook or hand-computed values, and small seeded simulations of coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm, t

from bench import coverage
from ccai.stats.intervals import FEWEST, holm, mcnemar_exact, mean_interval, paired_difference, proportion_interval

SLEEP = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
"""Student (1908), "The probable error of a mean": extra hours of sleep by drug, ten patients."""


def test_mean_interval_of_students_sleep_data() -> None:
    """By the formulas of Efron & Tibshirani 1993, An Introduction to the Bootstrap, 14.9, 14.14 and 14.15, with
    resamples of our own, at the level that Hesterberg 2015 expands to."""
    interval = mean_interval(SLEEP, 0, 100_000)
    assert (interval.n, interval.estimate) == (10, pytest.approx(1.58))
    values = np.array(SLEEP)
    means = np.random.default_rng(1).choice(values, (100_000, 10)).mean(1)
    below = ((means < values.mean()).mean() + (means <= values.mean()).mean()) / 2
    bias = norm.ppf(below)
    left_out = (values.sum() - values) / 9
    gaps = left_out.mean() - left_out
    acceleration = (gaps**3).sum() / (6 * (gaps**2).sum() ** 1.5)
    expanded = math.sqrt(10 / 9) * t.ppf(0.975, 9)
    bounds = [
        np.quantile(means, norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))) for z in (-expanded, expanded)
    ]
    assert (interval.low, interval.high) == pytest.approx(bounds, abs=0.03)
    # R: t.test(extra ~ group, data = sleep, paired = TRUE) prints 0.7001142 and 2.4598858 (signs turned); one patient
    # gained far more than the others, so the mean may well be higher than that.
    assert 0.7 < interval.low < 1 and 2.4598858 < interval.high < 3.2


def test_mean_interval_is_students_where_nothing_leans() -> None:
    values = norm.ppf((np.arange(60) + 0.5) / 60)
    half = t.ppf(0.975, 59) * values.std(ddof=1) / math.sqrt(60)
    interval = mean_interval(values.tolist(), 0, 50_000)
    assert (interval.low, interval.high) == pytest.approx((-half, half), rel=0.03)


def test_wider_confidence_is_a_wider_interval() -> None:
    assert mean_interval(SLEEP, 0, confidence=0.99).low < mean_interval(SLEEP, 0).low


def test_answers_that_repeat_their_prompts_others_tell_nothing_new() -> None:
    twice, labels = [value for value in SLEEP for _ in "ab"], [at for at in range(10) for _ in "ab"]
    assert mean_interval(twice, 0, clusters=labels)[:3] == pytest.approx(mean_interval(SLEEP, 0)[:3])


def test_one_value_per_cluster_is_the_plain_interval() -> None:
    assert mean_interval(SLEEP, 0, clusters=list(range(10))) == mean_interval(SLEEP, 0)


def test_the_same_seed_gives_the_same_bounds() -> None:
    assert mean_interval(SLEEP, 3) == mean_interval(SLEEP, 3) != mean_interval(SLEEP, 4)


def test_cluster_labels_need_no_order() -> None:
    together = mean_interval([*SLEEP, 1.0, 2.0], 0, clusters=[*range(10), 0, 1])
    mixed = mean_interval([1.0, 2.0, *SLEEP[2:], *SLEEP[:2]], 0, clusters=[*range(10), 0, 1])
    assert mixed == pytest.approx(together)


@pytest.mark.parametrize(
    ("values", "clusters"),
    [
        ([0.7], None),
        ([0.1] * 7, None),
        ([0.0, 1.0, 0.5], ["same"] * 3),
        ([0.0, 1.0] * 8, [prompt for prompt in "abcdefgh" for _ in "ab"]),
        (SLEEP[: FEWEST - 1], None),
        ([0.0] * 20 + [1.0], None),
    ],
    ids=["one value", "equal values", "one cluster", "balanced clusters", "too few", "equal but one"],
)
def test_no_spread_has_no_bounds(values: list[float], clusters: list[str] | None) -> None:
    interval = mean_interval(values, 0, clusters=clusters)
    assert interval.estimate == pytest.approx(sum(values) / len(values))
    assert math.isnan(interval.low) and math.isnan(interval.high)


def test_mean_interval_covers_at_its_level() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        interval = mean_interval(rng.normal(3.0, 2.0, size=12).tolist(), 0, 1000)
        covered += interval.low <= 3.0 <= interval.high
    # Binomial standard error of .95 over 1000 is .007: four of them either side.
    assert 0.92 <= covered / 1000 <= 0.98


def test_clusters_cover_where_the_plain_interval_does_not() -> None:
    rng = np.random.default_rng(2)
    labels = [prompt for prompt in range(25) for _ in range(8)]
    plain = clustered = 0
    for _ in range(300):
        values = (rng.normal(size=25).repeat(8) + rng.normal(scale=0.5, size=200)).tolist()
        low, high = mean_interval(values, 0, 1000)[1:3]
        plain += low <= 0 <= high
        low, high = mean_interval(values, 0, 1000, clusters=labels)[1:3]
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
    # Differences 1, 2, 3: mean 2, s = 1. Variances 1 and 4. df = 2, so J = 1 − 3/7 = 4/7. t = 2 √3, df 2: p = 0.0742.
    result = paired_difference([1, 2, 3], [2, 4, 6], seed=0)
    assert (result.n, result.clusters, result.mean_a, result.mean_b) == (3, 3, 2.0, 4.0)
    assert result.difference.estimate == 2.0
    assert result.hedges_j == pytest.approx(4 / 7)
    assert result.d_av.estimate == pytest.approx(2 / math.sqrt(2.5) * 4 / 7)
    assert result.d_z.estimate == pytest.approx(2 * 4 / 7)
    assert (result.p_value, result.test) == (pytest.approx(0.0742, abs=1e-4), "paired t")


def test_published_effect_sizes() -> None:
    # Lakens 2013 (Front. Psychol. 4:863, Table 1): t(9) = 4.74, p = .001, d_z = 1.50; J(9) = 1 − 3/35. Its d of 1.13
    # has the root of the mean variance below, as our d_av has.
    movie_1, movie_2 = [9, 7, 8, 9, 8, 9, 9, 10, 9, 9], [9, 6, 7, 8, 7, 9, 8, 8, 8, 7]
    result = paired_difference(movie_2, movie_1, seed=0)
    assert result.difference.estimate == pytest.approx(1.0)
    assert result.d_z.estimate / result.hedges_j == pytest.approx(1.50, abs=0.005)
    assert result.d_av.estimate / result.hedges_j == pytest.approx(1.13, abs=0.006)
    assert result.hedges_j == pytest.approx(1 - 3 / 35)
    assert result.p_value == pytest.approx(0.0011, abs=5e-5)
    assert 0 < result.d_z.low < result.d_z.estimate < result.d_z.high


def test_students_interval_on_his_data() -> None:
    # 0.700 to 2.460, p = .00283 (R: t.test).
    result = paired_difference([0] * 10, SLEEP, seed=3, clusters=list("abcdefghij"))
    assert (result.difference.low, result.difference.high) == pytest.approx((0.7001, 2.4599), abs=1e-4)
    assert (result.p_value, result.test) == (pytest.approx(0.00283, abs=1e-5), "paired t")


@pytest.mark.parametrize("kind", ["outcomes", "scores", "clusters"])
def test_interval_and_p_value_agree_at_every_seed(kind: str) -> None:
    """Of 600 studies, most near the edge: 0 is left out exactly where p is below 0.05, whatever the seed."""
    rng = np.random.default_rng(5)
    left_out = 0
    for _ in range(600):
        n = int(rng.integers(8, 40))
        if kind == "outcomes":
            a, b = rng.random(n) < 0.3, rng.random(n) < 0.55
        else:
            a, b = np.zeros(n), rng.normal(0.35, 1.0, n).round(1)
        labels = [place // 2 for place in range(n)] if kind == "clusters" else None
        results = [
            paired_difference(a.tolist(), b.tolist(), seed, 2, clusters=labels, yes_no=kind == "outcomes")
            for seed in (0, 1)
        ]
        assert results[0].difference == results[1].difference
        low, high = results[0].difference[1:3]
        if not math.isnan(low):
            assert (low > 0 or high < 0) == (results[0].p_value < 0.05)
            left_out += low > 0
    assert 100 < left_out < 500


def test_published_interval_of_paired_shares() -> None:
    # Cavo et al. 2012 in Fagerland, Lydersen & Laake 2017 (Statistical Analysis of Contingency Tables, chapter 8, and
    # their R package contingencytables): 6 and 16 of 161 pairs disagree; Wald with Bonett-Price adjustment −0.1195 to
    # −0.0032, exact conditional McNemar P = 0.052479, which does not reject: 0 is not left out.
    a = [1] * 59 + [0] * 6 + [1] * 16 + [0] * 80
    b = [1] * 59 + [1] * 6 + [0] * 16 + [0] * 80
    result = paired_difference(a, b, seed=0, yes_no=True)
    assert result.difference.estimate == pytest.approx(-0.0621, abs=5e-5)
    assert (result.difference.low, result.difference.high) == pytest.approx((-0.1195, 0.0), abs=5e-5)
    assert (result.p_value, result.test) == (pytest.approx(0.052479, abs=5e-7), "exact McNemar")
    # Ahmad et al. 2006, in the same place (bronchial hyper-responsiveness): 1 and 7 of 21, p = 0.0703.
    few = paired_difference([1] * 2 + [0] + [1] * 7 + [0] * 11, [1] * 2 + [1] + [0] * 7 + [0] * 11, 0, yes_no=True)
    assert few.p_value == pytest.approx(0.0703, abs=5e-5) and few.difference.high == 0.0
    more = paired_difference([1] * 61 + [0] * 100, [1] * 45 + [0] * 116, seed=0, yes_no=True)
    assert more.p_value < 0.05 and more.difference.high < 0


def test_outcomes_that_never_differ_have_bounds() -> None:
    # ± 1.96 √(2/26 / 26), and a wide one for a single pair: nothing was seen to differ, which is no proof.
    same = [1] * 4 + [0] * 20
    result = paired_difference(same, same, seed=0, yes_no=True)
    assert result.difference[:3] == pytest.approx((0, -0.1066, 0.1066), abs=1e-4)
    assert result.p_value == 1.0
    one = paired_difference([0], [1], seed=0, yes_no=True).difference
    assert one.low < 0 and one.high == 1.0


def test_paired_difference_has_the_sign_of_b_minus_a() -> None:
    there = paired_difference([0] * 10, SLEEP, seed=3)
    back = paired_difference(SLEEP, [0] * 10, seed=3)
    assert there.difference.estimate == pytest.approx(1.58) and there.difference.low > 0
    assert back.difference.estimate == pytest.approx(-1.58) and back.difference.high < 0
    assert back.d_z.estimate == pytest.approx(-there.d_z.estimate)


def test_paired_difference_is_deterministic() -> None:
    zeros = [0.0] * 10
    first = paired_difference(zeros, SLEEP, seed=5, resamples=500)
    assert first == paired_difference(zeros, SLEEP, seed=5, resamples=500)
    other = paired_difference(zeros, SLEEP, seed=6, resamples=500)
    assert other.d_z != first.d_z and other.difference == first.difference


def test_clusters_are_drawn_whole() -> None:
    """Every value four times says no more than once, and the labels need no order."""
    values = [value for value in SLEEP for _ in range(4)]
    labels = [str(place) for place in range(10) for _ in range(4)]
    zeros = [0.0] * 40
    once = paired_difference([0.0] * 10, SLEEP, seed=1)
    many = paired_difference(zeros, values, seed=1, clusters=labels)
    assert (many.n, many.clusters, many.test) == (40, 10, "cluster t")
    assert many.difference[:3] == pytest.approx(once.difference[:3])
    # statsmodels' small-sample factor is G/(G − 1) · (n − 1)/(n − 1) on a constant, so the p values agree as well.
    assert many.p_value == pytest.approx(once.p_value)
    naive = paired_difference(zeros, values, seed=1).difference
    assert naive.high - naive.low < 0.7 * (many.difference.high - many.difference.low)
    mixed = paired_difference(zeros, values[::-1], seed=1, clusters=labels[::-1])
    assert mixed.p_value == pytest.approx(many.p_value)


def test_equal_differences_have_no_bounds() -> None:
    first = [0.1 * place for place in range(8)]
    result = paired_difference(first, [value + 0.1 for value in first], seed=0)
    assert result.difference.estimate == pytest.approx(0.1)
    assert all(map(math.isnan, (result.difference.low, result.difference.high, result.p_value, result.d_z.estimate)))
    assert math.isfinite(result.d_av.estimate)
    assert paired_difference(first, first, seed=0).p_value == 1.0


@pytest.mark.parametrize(("differing", "bounded"), [(FEWEST - 1, False), (FEWEST, True)])
def test_few_pairs_that_differ_have_no_bounds(differing: int, bounded: bool) -> None:
    second = [0.1 * (place + 1) for place in range(differing)] + [0.0] * (24 - differing)
    result = paired_difference([0.0] * 24, second, seed=0)
    assert math.isfinite(result.difference.low) is bounded
    assert math.isfinite(result.d_z.high) is bounded
    assert result.difference.low > 0 or not bounded


def test_clusters_that_balance_out_have_no_bounds(recwarn: pytest.WarningsRecorder) -> None:
    """Each prompt gains in one order what it loses in the other: that tells nothing of the spread over prompts."""
    gains = [sign * value for value in SLEEP for sign in (1, -1)]
    labels = [str(place) for place in range(len(SLEEP)) for _ in "ab"]
    result = paired_difference([0.1] * len(gains), [0.1 + gain for gain in gains], seed=0, clusters=labels)
    assert result.difference.estimate == pytest.approx(0)
    bounds = [bound for interval in (result.difference, result.d_av, result.d_z) for bound in interval[1:3]]
    assert all(map(math.isnan, [*bounds, result.p_value]))
    assert not recwarn.list


def test_resamples_without_spread_give_no_effect_size_bounds(recwarn: pytest.WarningsRecorder) -> None:
    """23 of 24 differ by the same 1: a third of the resamples has d_z beyond all bounds. Nothing is warned of."""
    result = paired_difference([0.0] * 24, [1.0] * 23 + [0.5], seed=0)
    assert math.isfinite(result.d_z.estimate) and math.isnan(result.d_z.low) and math.isnan(result.d_z.high)
    assert math.isfinite(result.difference.low)
    assert not recwarn.list


def test_unit_plays_no_part() -> None:
    small = paired_difference([0.0] * 10, [value / 2**20 for value in SLEEP], seed=1)
    large = paired_difference([0.0] * 10, SLEEP, seed=1)
    assert small.d_z[:3] == pytest.approx(large.d_z[:3])
    assert small.difference.low == pytest.approx(large.difference.low / 2**20)


def test_no_variance_at_all_has_no_effect_size() -> None:
    result = paired_difference([0.1] * 7, [0.3] * 7, seed=0)
    assert math.isnan(result.d_av.estimate) and math.isnan(result.d_z.estimate)


def test_one_pair_has_no_bounds_and_two_no_effect_size() -> None:
    one = paired_difference([0.2], [0.5], seed=0)
    assert one.difference.estimate == pytest.approx(0.3)
    assert all(map(math.isnan, (*one.difference[1:3], *one.d_av[:3], *one.d_z[:3], one.hedges_j, one.p_value)))
    two = paired_difference([0, 1], [1, 4], seed=0)
    assert math.isnan(two.d_av.estimate) and math.isnan(two.d_z.estimate)


# Binomial standard error of 95 % of 300 studies is .0126; the designs and all sizes, 1,000 studies each, are in
# bench/results/coverage.json. Bounds that are exact hold the truth more often than 95 %, never less.
@pytest.mark.parametrize(
    ("design", "n"),
    [("outcomes .50 -> .30", 24), ("mostly zero .10 -> .30", 42), ("normal", 24), ("clustered, 4 answers", 24)],
)
def test_intervals_cover(design: str, n: int) -> None:
    for kind, shares in coverage.measure(design, n, studies=300, seed=1).items():
        assert shares["left_out"] <= 0.09, kind
        assert shares["held"] <= (1.0 if "exact" in kind else 0.985), kind


@pytest.mark.slow
@pytest.mark.parametrize("n", coverage.SIZES)
@pytest.mark.parametrize("design", coverage.DESIGNS)
def test_differences_cover_in_1000_studies(design: str, n: int) -> None:
    """Two standard errors (.007 each) above 7 % at most; a study without bounds told nothing wrong."""
    measured = coverage.measure(design, n, studies=1000, seed=2)
    [shares] = [shares for kind, shares in measured.items() if kind.startswith("difference")]
    assert shares["left_out"] <= 0.07 + 2 * 0.007


def test_plain_percentiles_would_be_too_narrow() -> None:
    """What the widened level is for: on the same normal samples the plain interval misses more often."""
    rng = np.random.default_rng(4)
    plain = widened = 0
    for seed in range(300):
        values = rng.normal(size=12)
        interval = mean_interval(values.tolist(), seed=seed, resamples=500)
        widened += interval.low <= 0 <= interval.high
        low, high = np.quantile(rng.choice(values, (500, 12)).mean(axis=1), [0.025, 0.975])
        plain += low <= 0 <= high
    assert plain < 0.925 * 300 and widened > plain


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
        mean_interval([], 0)
    with pytest.raises(ValueError, match="nan"):
        mean_interval([0.1, math.nan], 0)
    with pytest.raises(ValueError, match="confidence"):
        mean_interval([0.1, 0.2], 0, confidence=95)
    with pytest.raises(ValueError, match="cluster label"):
        mean_interval([0.1, 0.2], 0, clusters=["p"])
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
    with pytest.raises(ValueError, match="cluster label"):
        paired_difference([1, 2], [1, 3], seed=0, clusters=["p"])
    with pytest.raises(ValueError, match="0 or 1"):
        paired_difference([1, 2], [1, 0], seed=0, yes_no=True)
    with pytest.raises(ValueError, match="0 or 1"):
        mcnemar_exact([0, 2], [0, 1])
    with pytest.raises(ValueError, match="equally long"):
        mcnemar_exact([0], [0, 1])
    with pytest.raises(ValueError, match="0, 1"):
        holm([0.5, 1.2])
    with pytest.raises(ValueError, match="non-empty"):
        holm([])
