"""Confidence intervals, effect sizes and tests, built on scipy and statsmodels.

    proportion_interval(3, 20)  # Interval(estimate=0.15, low=0.032…, high=0.378…, n=20)
    paired_difference(base, tuned, seed=0).difference  # tuned − base on the same items, with its interval

A bound that the data cannot support is nan: one value has no spread, and neither has one cluster. Every function
raises ValueError on empty, unequally long or non-finite input, because a nan inside a mean would look like a result.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

FEWEST = 6
"""Clusters that must differ before there are bounds. With five that all differ in one direction a sign test has
p = 0.06, so bounds that exclude 0 would claim more than the data can support.
"""

LARGEST = 1000.0
"""Effect sizes above this come from resamples without spread; their bounds are nan."""


class Interval(NamedTuple):
    """A point estimate with a two-sided confidence interval."""

    estimate: float
    low: float
    """Lower bound, in the estimate's unit; nan when the data cannot support one."""
    high: float
    """Upper bound, in the estimate's unit; nan when the data cannot support one."""
    n: int
    """Observations (not clusters)."""


class PairedDifference(NamedTuple):
    """The difference of b from a on the same items.

    Both effect sizes (Algina & Keselman 2003, Educ. Psychol. Meas. 63(4)) use sample variances (n − 1) and Hedges'
    J. d_av is comparable between designs; d_z is the effect that a paired test sees. Their intervals are BCa bootstraps
    (Efron 1987), widened as in `paired_difference`, because the percentile interval of a ratio is biased.
    """

    n: int
    """Pairs."""
    clusters: int
    """Clusters of pairs; as many as pairs where each pair is its own."""
    mean_a: float
    mean_b: float
    difference: Interval
    """mean_b − mean_a, in the values' unit, with its 95 % interval."""
    d_av: Interval
    """Difference / sqrt((s_a² + s_b²) / 2), times Hedges' J; nan when both variances are 0 or n < 3."""
    d_z: Interval
    """Difference / standard deviation of the differences, times Hedges' J; nan when that is 0 or n < 3."""
    hedges_j: float
    """1 − 3 / (4 (n − 1) − 1); nan when n < 3."""
    p_value: float
    """Two-sided; nan when there is no spread to test against."""
    test: Literal["exact McNemar", "paired t", "cluster t"]
    """Gives the p value and the difference's interval alike: the interval leaves out 0 only where p is below 0.05."""


def number(value: float) -> float | None:
    """The value for JSON: nan, which JSON lacks, is None."""
    return None if math.isnan(value) else value


def _finite(values: Sequence[float], name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be a non-empty flat sequence, its shape is {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds nan or an infinity: leave invalid items out and report how many")
    return array


def _pair(a: Sequence[float], b: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = _finite(a, "a"), _finite(b, "b")
    if first.size != second.size:
        raise ValueError(f"paired values must be equally long: {first.size} and {second.size}")
    return first, second


def _scale(values: NDArray[np.float64]) -> float:
    """Scale of rounding errors: the mean of equal decimals such as 0.1 differs from them by 1e-17."""
    return max(1.0, float(np.abs(values).max()))


def _constant(values: NDArray[np.float64]) -> bool:
    return bool(np.ptp(values) <= 1e-12 * _scale(values))


def mean_interval(
    values: Sequence[float],
    seed: int,
    resamples: int = 10_000,
    *,
    confidence: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
) -> Interval:
    """Mean with a BCa bootstrap interval (Efron 1987), expanded as in `paired_difference`.

    Student's interval is symmetric, so with skewed scores, or scores that are mostly 0, it covers the mean too rarely
    (bench/coverage.py). With `clusters` (a label per value, such as the prompt that several principles share) whole
    clusters are resampled. The same seed gives the same bounds. For 0/1 values use `proportion_interval`.

    Bounds are nan where the values do not show their spread: fewer than `FEWEST` clusters, clusters that cancel out, or
    all equal except one.

    Raises ValueError when values are empty or not finite, resamples < 1, confidence is outside (0, 1), or the number of
    labels differs from that of values.
    """
    array = _finite(values, "values")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be between 0 and 1, it is {confidence}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, it is {resamples}")
    codes, estimate = _codes(clusters, array.size), float(array.mean())
    groups, low, high = int(codes.max()) + 1, math.nan, math.nan
    sums = np.stack([np.bincount(codes, weights=array), np.bincount(codes)])
    pulls = (sums[0] - estimate * sums[1]) / _scale(array)
    if groups >= FEWEST and _alike(pulls) < groups - 1:

        def mean(drawn: NDArray[np.int_], axis: int = -1) -> NDArray[np.float64]:
            total, n = sums[:, drawn].sum(axis)
            return np.asarray(total / n)

        interval = scipy_stats.bootstrap(
            (np.arange(groups),), mean, n_resamples=resamples, method="BCa", **_expanded(groups, confidence, seed)
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return Interval(estimate, low, high, int(array.size))


def effective_size(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """How many independent values would tell the mean as exactly as these do: n over the design effect (Kish 1965).

    At most n; the number of clusters where the values show no spread.

    Raises ValueError when values are empty or not finite, or the number of labels differs from theirs.
    """
    array = _finite(values, "values")
    codes = _codes(clusters, array.size)
    groups = int(codes.max()) + 1
    if groups == array.size or groups < 2 or _constant(array):
        return float(groups)
    off = np.bincount(codes, weights=array - array.mean())
    variance = float((off**2).sum()) * groups / (groups - 1) / array.size**2
    return min(float(array.size), float(array.var()) / variance) if variance > 0 else float(array.size)


def _alike(values: NDArray[np.float64]) -> int:
    """How often the most common value occurs."""
    return int(np.unique(values.round(12), return_counts=True)[1].max())


def _expanded(groups: int, confidence: float, seed: int) -> dict[str, Any]:
    """Options of scipy's bootstrap over that many clusters, its level widened by Student's quantile and n - 1."""
    quantile = math.sqrt(groups / (groups - 1)) * float(scipy_stats.t.ppf((1 + confidence) / 2, groups - 1))
    return {
        "vectorized": True,
        "confidence_level": 1 - 2 * float(scipy_stats.norm.sf(quantile)),
        # Batches bound the memory: 10 000 resamples of 10 000 pairs at once would take 5 GB.
        "batch": max(1, 1_000_000 // groups),
        "rng": np.random.default_rng(seed),
    }


def _codes(clusters: Sequence[Hashable] | None, n: int) -> NDArray[np.int_]:
    """Clusters numbered from 0 in order of appearance; without labels each value is a cluster."""
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        raise ValueError(f"one cluster label per value is needed: {len(clusters)} labels, {n} values")
    numbers = {label: number for number, label in enumerate(dict.fromkeys(clusters))}
    return np.array([numbers[label] for label in clusters])


def _standard_error(values: NDArray[np.float64], codes: NDArray[np.int_]) -> float:
    """Standard error of the mean: cluster-robust, or ordinary if each value is a cluster; nan without spread."""
    groups = int(codes.max()) + 1
    if groups < 2 or _constant(values):
        return math.nan
    if groups == values.size:
        return float(scipy_stats.sem(values))
    fit = OLS(values, np.ones(values.size)).fit(cov_type="cluster", cov_kwds={"groups": codes}, use_t=True)
    error = float(fit.bse[0])
    return error if error > 1e-12 * max(1.0, abs(float(values.mean()))) else math.nan


def proportion_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """successes / n with the exact binomial (Clopper-Pearson) interval, all in [0, 1].

    Raises ValueError unless 0 ≤ successes ≤ n, n ≥ 1 and confidence in (0, 1).
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"0 <= successes <= n and n >= 1 are needed, not {successes} of {n}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be between 0 and 1, it is {confidence}")
    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="beta")
    return Interval(successes / n, float(low), float(high), n)


def paired_difference(
    a: Sequence[float],
    b: Sequence[float],
    seed: int,
    resamples: int = 10_000,
    *,
    clusters: Sequence[Hashable] | None = None,
    yes_no: bool = False,
) -> PairedDifference:
    """Mean of b − a over pairs with its 95 % interval, two effect sizes with theirs, and a p value.

    Args:
        clusters: a label per pair, such as the prompt that several answers share. Interval and p value are then those
            of a cluster-robust t test (arXiv 2411.00640).
        yes_no: the values are outcomes, 0 or 1.

    The difference has the interval of the test that gives its p value, so that both say the same, at every seed:
    Student's, or for yes/no outcomes without clusters that of `discordant_interval`. Only the effect sizes' intervals
    come from a bootstrap of whole pairs or clusters (scipy.stats.bootstrap; the same seed gives the same bounds). Its
    level is widened by what a percentile interval lacks below some 50 pairs: it divides by n where Student's divides by
    n − 1, and uses the normal quantile instead of t's (Hesterberg 2015, "What Teachers Should Know About the
    Bootstrap", The American Statistician 69(4)). bench/coverage.py measures how often each interval covers the truth.

    Bounds other than those of outcomes are nan where fewer than `FEWEST` clusters differ (a cluster whose differences
    cancel out does not count) or all differ alike, and the p value of t is nan where all differ alike. Effect sizes are
    nan for a variance of 0 and below three pairs, where J is 0 or undefined and would read as "no effect".

    Raises ValueError when the values are empty, unequally long or not finite, resamples < 1, the number of labels
    differs from that of pairs, or outcomes are not 0 or 1.
    """
    first, second = _pair(a, b)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, it is {resamples}")
    n, codes = int(first.size), _codes(clusters, first.size)
    groups = int(codes.max()) + 1
    # The difference of the means, so that the three printed numbers agree to the last digit.
    mean_a, mean_b = float(first.mean()), float(second.mean())
    difference = mean_b - mean_a
    hedges_j, d_av, d_z = _effect_sizes(first, second, difference)
    tell = _enough_differ(first, second, codes)
    lows, highs = _bootstrap(first, second, codes, hedges_j, seed, resamples) if tell else ([math.nan] * 2,) * 2
    plain = groups == n
    if yes_no and plain:
        only_a, only_b = _discordant(first, second)
        low, high = map(float, discordant_interval(np.array(only_a), np.array(only_b), n))
        p_value = mcnemar_exact(a, b)
    else:
        p_value, low, high = _t_test(second - first, codes, difference)
        if not tell:
            low = high = math.nan
    return PairedDifference(
        n,
        groups,
        mean_a,
        mean_b,
        Interval(difference, low, high, n),
        Interval(d_av, lows[0], highs[0], n),
        Interval(d_z, lows[1], highs[1], n),
        hedges_j,
        p_value,
        "exact McNemar" if yes_no and plain else "paired t" if plain else "cluster t",
    )


def _effect_sizes(
    first: NDArray[np.float64], second: NDArray[np.float64], difference: float
) -> tuple[float, float, float]:
    """Hedges' J, d_av and d_z; see `PairedDifference`."""
    n, differences = int(first.size), second - first
    hedges_j = 1 - 3 / (4 * (n - 1) - 1) if n >= 3 else math.nan
    d_av = d_z = math.nan
    if n >= 3 and not (_constant(first) and _constant(second)):
        d_av = hedges_j * difference / math.sqrt((float(first.var(ddof=1)) + float(second.var(ddof=1))) / 2)
    if n >= 3 and not _constant(differences):
        d_z = hedges_j * difference / float(differences.std(ddof=1))
    return hedges_j, d_av, d_z


def _t_test(differences: NDArray[np.float64], codes: NDArray[np.int_], mean: float) -> tuple[float, float, float]:
    """Two-sided p value of a mean, by clusters, and its 95 % bounds; p is 1 where all are 0, nan where alike."""
    if not differences.any():
        return 1.0, math.nan, math.nan
    freedom, error = int(codes.max()), _standard_error(differences, codes)
    half = float(scipy_stats.t.ppf(0.975, freedom)) * error
    return 2 * float(scipy_stats.t.sf(abs(mean) / error, freedom)), mean - half, mean + half


def _enough_differ(first: NDArray[np.float64], second: NDArray[np.float64], codes: NDArray[np.int_]) -> bool:
    """Whether `FEWEST` clusters differ, and not all alike."""
    totals = np.bincount(codes, weights=second - first) / _scale(np.concatenate([first, second]))
    return int(np.count_nonzero(totals.round(12))) >= FEWEST and not _constant(second - first)


def _bootstrap(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    codes: NDArray[np.int_],
    hedges_j: float,
    seed: int,
    resamples: int,
) -> tuple[list[float], list[float]]:
    """Lower and upper 95 % bounds of d_av and d_z."""
    groups, differences = int(codes.max()) + 1, second - first
    # A resample needs only sums per cluster. They are centred, because variances come from sums of squares.
    centre = (first.mean() + second.mean()) / 2
    x, y = first - centre, second - centre
    columns = (np.ones_like(x), x, y, x * x, y * y, differences * differences)
    sums = np.stack([np.bincount(codes, weights=column) for column in columns])
    tiny = 1e-12 * float(np.abs(columns[1:3]).max()) ** 2

    def effects(drawn: NDArray[np.int_], axis: int = -1) -> NDArray[np.float64]:
        n, x, y, xx, yy, dd = sums[:, drawn].sum(axis)
        difference = (y - x) / n
        spread_x, spread_y = (xx - x * x / n) / (n - 1), (yy - y * y / n) / (n - 1)
        spread = np.stack([(spread_x + spread_y) / 2, (dd - (y - x) ** 2 / n) / (n - 1)])
        # A resample may have no spread; the floor makes its effect size 0 or huge, depending on the difference.
        return np.asarray(hedges_j * difference / np.sqrt(np.maximum(spread, tiny)))

    interval = scipy_stats.bootstrap(
        (np.arange(groups),), effects, n_resamples=resamples, method="BCa", **_expanded(groups, 0.95, seed)
    ).confidence_interval
    lows, highs = interval.low.tolist(), interval.high.tolist()
    for place in (0, 1):
        if max(abs(lows[place]), abs(highs[place])) > LARGEST:
            lows[place] = highs[place] = math.nan
    return lows, highs


def discordant_interval(
    only_a: NDArray[np.int_], only_b: NDArray[np.int_], n: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % bounds of the difference b − a of two paired shares (Bonett & Price 2012, doi 10.3102/1076998611411915),
    which bound a difference of 0 as well, drawn out to 0 where the exact McNemar test does not reject at 5 %.

    Neither scipy nor statsmodels has an interval for pairs. Bonett and Price's alone would leave out 0 in up to 11 % of
    studies of ten pairs without a difference; where the exact test rejects, it always does.

    Args:
        only_a, only_b: of n pairs, those with a yes only in a, and only in b; of any one shape.
    """
    share_a, share_b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    error = np.sqrt((share_a + share_b - (share_b - share_a) ** 2) / (n + 2))
    half = float(scipy_stats.norm.ppf(0.975)) * error
    low, high = np.maximum(-1.0, share_b - share_a - half), np.minimum(1.0, share_b - share_a + half)
    unsure = 2 * scipy_stats.binom.cdf(np.minimum(only_a, only_b), only_a + only_b, 0.5) >= 0.05
    return np.where(unsure, np.minimum(low, 0.0), low), np.where(unsure, np.maximum(high, 0.0), high)


def _discordant(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[int, int]:
    """Number of pairs with a yes only in a, and only in b."""
    if not (np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all()):
        raise ValueError("yes/no outcomes must be 0 or 1")
    return int((first > second).sum()), int((second > first).sum())


def mcnemar_exact(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided exact McNemar p value of paired yes/no outcomes; 1 when no pair disagrees.

    Raises ValueError when the outcomes are empty, unequally long or not all 0 or 1.
    """
    only_a, only_b = _discordant(*_pair(a, b))
    if only_a + only_b == 0:
        return 1.0
    return float(mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue)


def holm(pvalues: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values in the order given.

    Raises ValueError when the p values are empty, not finite or outside [0, 1].
    """
    array = _finite(pvalues, "pvalues")
    if ((array < 0) | (array > 1)).any():
        raise ValueError("p values must lie in [0, 1]")
    order = np.argsort(array)
    adjusted = np.empty(len(array))
    adjusted[order] = np.maximum.accumulate(array[order] * np.arange(len(array), 0, -1)).clip(max=1)
    return [float(p) for p in adjusted]
