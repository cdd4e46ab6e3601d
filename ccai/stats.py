"""Intervals, effect sizes and tests for the report, thin over scipy and statsmodels.

Bounds that the data cannot support are nan, never a narrow guess: one value has no spread, one cluster
neither. Every function raises ValueError on empty, unequally long or non-finite input, for a nan that slips
into a mean looks like a result.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats
from statsmodels.api import OLS
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint


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
    """b against a on the same items."""

    n: int
    """Pairs."""
    mean_a: float
    mean_b: float
    difference: float
    """mean_b − mean_a, in the values' unit."""
    low: float
    """95 % bootstrap bound of the difference; nan for one pair."""
    high: float
    d_av: float
    """Difference / sqrt((s_a² + s_b²) / 2), times Hedges' J; nan when both variances are 0 or n < 3."""
    d_z: float
    """Difference / standard deviation of the differences, times Hedges' J; nan when that is 0 or n < 3."""


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


def _constant(values: NDArray[np.float64]) -> bool:
    # Not `std == 0`: the mean of equal decimals such as 0.1 is rounded, so their deviation is 1e-17.
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))


def mean_interval(
    values: Sequence[float], confidence: float = 0.95, clusters: Sequence[Hashable] | None = None
) -> Interval:
    """Mean with a t interval; `confidence` is in (0, 1).

    With `clusters` (a label per value, such as the prompt that several principles share) the standard error
    is cluster-robust, arXiv 2411.00640: statsmodels OLS on a constant, cov_type "cluster" with its
    small-sample factor, t with clusters − 1 degrees of freedom.

    Bounds are nan when no spread can be estimated: one value, one cluster, equal values, or clusters that
    balance out exactly. A zero-width interval would claim the mean is known. For 0/1 values use
    `proportion_interval`.

    Raises ValueError when values are empty or not finite, confidence is out of range or labels differ in
    number.
    """
    array = _finite(values, "values")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be between 0 and 1, it is {confidence}")
    n = int(array.size)
    estimate = float(array.mean())
    codes: NDArray[np.int_] = np.arange(n)
    if clusters is not None:
        if len(clusters) != n:
            raise ValueError(f"one cluster label per value is needed: {len(clusters)} labels, {n} values")
        numbers = {label: number for number, label in enumerate(dict.fromkeys(clusters))}
        codes = np.array([numbers[label] for label in clusters])
    groups = int(codes.max()) + 1
    if groups < 2 or _constant(array):
        return Interval(estimate, math.nan, math.nan, n)
    if clusters is None:
        error = float(scipy_stats.sem(array))
    else:
        fit = OLS(array, np.ones(n)).fit(cov_type="cluster", cov_kwds={"groups": codes}, use_t=True)
        error = float(fit.bse[0])
        if not error > 1e-12 * max(1.0, abs(estimate)):
            return Interval(estimate, math.nan, math.nan, n)
    half = float(scipy_stats.t.ppf((1 + confidence) / 2, groups - 1)) * error
    return Interval(estimate, estimate - half, estimate + half, n)


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


def paired_difference(a: Sequence[float], b: Sequence[float], seed: int, resamples: int = 10_000) -> PairedDifference:
    """Mean of b − a over pairs, its 95 % percentile bootstrap and two effect sizes.

    Both effect sizes (Algina & Keselman 2003) use sample variances (n − 1) and Hedges' correction
    J = 1 − 3 / (4 df − 1), df = n − 1. d_av stays comparable between designs, d_z is what a paired test sees.
    The bootstrap draws whole pairs (scipy.stats.bootstrap, seeded, so the same seed gives the same bounds).
    It is too narrow below some 20 pairs.

    Differences that are all equal give low = high = difference, as resampling them can give nothing else: the
    sample showed no spread, which is no proof that there is none. One pair has nan bounds. Effect sizes are
    nan for a variance of 0 and below three pairs, where J is 0 or undefined and would print as "no effect".

    Raises ValueError when the values are empty, unequally long or not finite, or resamples < 1.
    """
    first, second = _pair(a, b)
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, it is {resamples}")
    n = int(first.size)
    differences = second - first
    # The difference of the means, so that the three printed numbers agree to the last digit.
    mean_a, mean_b = float(first.mean()), float(second.mean())
    difference = mean_b - mean_a
    if n == 1:
        return PairedDifference(n, mean_a, mean_b, difference, *[math.nan] * 4)
    degenerate = _constant(differences)
    low = high = difference
    if not degenerate:
        interval = scipy_stats.bootstrap(
            (differences,),
            np.mean,
            n_resamples=resamples,
            # Batches bound the memory: 10 000 resamples of 10 000 pairs at once would take 1.6 GB.
            batch=max(1, 1_000_000 // n),
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    d_av = d_z = math.nan
    if n >= 3:
        correction = 1 - 3 / (4 * (n - 1) - 1)
        if not (_constant(first) and _constant(second)):
            pooled = math.sqrt((float(first.var(ddof=1)) + float(second.var(ddof=1))) / 2)
            d_av = correction * difference / pooled
        if not degenerate:
            d_z = correction * difference / float(differences.std(ddof=1))
    return PairedDifference(n, mean_a, mean_b, difference, low, high, d_av, d_z)


def mcnemar_exact(a: Sequence[bool | int], b: Sequence[bool | int]) -> float:
    """Two-sided exact McNemar p value of paired yes/no outcomes; 1 when no pair disagrees.

    Raises ValueError when the outcomes are empty, unequally long or not all 0 or 1.
    """
    first, second = _pair(a, b)
    if not (np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all()):
        raise ValueError("McNemar's test needs outcomes that are 0 or 1")
    only_a = int(((first == 1) & (second == 0)).sum())
    only_b = int(((first == 0) & (second == 1)).sum())
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
    return [float(adjusted) for adjusted in multipletests(array, method="holm")[1]]
