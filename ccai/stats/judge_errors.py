"""Rates of a judge's verdicts, corrected for the judge's own errors.

A judge that misses some harm and finds some where there is none reports q = p·sensitivity + (1 − p)·(1 − specificity)
for a true rate p (Rogan & Gladen 1978). Both are known from labelled answers only up to sampling error, which the
intervals here carry:

    exam = Accuracy(true_positives=70, positives=80, true_negatives=74, negatives=80)
    corrected_rate(0.3, 100, exam)          # Interval(estimate=0.28…, …)
    corrected_difference(raw_interval, exam)    # of two arms that the same judge read

The correction supposes that the judge errs on the run's answers as often as on the labelled ones, and on all arms
alike. Where people labelled some of the run's answers, those say whether it does.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy import stats as scipy_stats

from ccai.stats.intervals import Interval, proportion_interval


class Accuracy(NamedTuple):
    """A judge's verdicts on labelled answers, by label."""

    true_positives: int
    """Of the answers labelled 1, those that the judge calls 1."""
    positives: int
    true_negatives: int
    """Of the answers labelled 0, those that the judge calls 0."""
    negatives: int

    def sensitivity(self, confidence: float = 0.95) -> Interval:
        """Share of the positives found, with its exact binomial interval."""
        return proportion_interval(self.true_positives, self.positives, confidence=confidence)

    def specificity(self, confidence: float = 0.95) -> Interval:
        """Share of the negatives left alone, with its exact binomial interval."""
        return proportion_interval(self.true_negatives, self.negatives, confidence=confidence)

    @property
    def youden(self) -> Interval:
        """Sensitivity + specificity − 1: the share of a true difference that shows in raw rates.

        The interval is MOVER's for a sum (Zou & Donner 2008, doi 10.1002/sim.3095), from the exact ones.
        """
        sensitivity, specificity = self.sensitivity(), self.specificity()
        estimate = sensitivity.estimate + specificity.estimate - 1
        below = math.hypot(sensitivity.estimate - sensitivity.low, specificity.estimate - specificity.low)
        above = math.hypot(sensitivity.high - sensitivity.estimate, specificity.high - specificity.estimate)
        return Interval(estimate, estimate - below, estimate + above, self.positives + self.negatives)


def corrected_rate(rate: float, n: float, accuracy: Accuracy, confidence: float = 0.95) -> Interval:
    """The true rate behind a raw one.

    The interval is that of Lang & Reiczigel (2014, doi 10.1016/j.prevetmed.2013.09.015).

    Args:
        rate: share of answers that the judge calls 1.
        n: answers; where several share a prompt, the number of independent ones that would be worth as much.

    Returns:
        Estimate and bounds in [0, 1]; all nan if the judge is no better than chance.

    Raises:
        ValueError: rate outside [0, 1], or no answers or labels.
    """
    if not 0 <= rate <= 1 or n <= 0 or min(accuracy.positives, accuracy.negatives) < 1:
        raise ValueError(f"rate {rate} of {n} answers, judged as {accuracy}")
    youden = accuracy.youden.estimate
    if youden <= 0:
        return Interval(math.nan, math.nan, math.nan, round(n))
    z = float(scipy_stats.norm.ppf((1 + confidence) / 2))
    estimate = (rate + accuracy.specificity().estimate - 1) / youden
    # Each of the three rates is drawn towards 1/2, as in Agresti and Coull's interval, for the sake of small samples.
    sensitivity = (accuracy.true_positives + 1) / (accuracy.positives + 2)
    specificity = (accuracy.true_negatives + 1) / (accuracy.negatives + 2)
    raw, shown = (n * rate + z**2 / 2) / (n + z**2), sensitivity + specificity - 1
    true = (raw + specificity - 1) / shown
    of_sensitivity = sensitivity * (1 - sensitivity) / (accuracy.positives + 2)
    of_specificity = specificity * (1 - specificity) / (accuracy.negatives + 2)
    shift = 2 * z**2 * (true * of_sensitivity - (1 - true) * of_specificity)
    variance = raw * (1 - raw) / (n + z**2) + true**2 * of_sensitivity + (1 - true) ** 2 * of_specificity
    half = z * math.sqrt(variance) / shown
    low, high = (min(1.0, max(0.0, true + shift + side * half)) for side in (-1, 1))
    return Interval(min(1.0, max(0.0, estimate)), low, high, round(n))


def corrected_difference(raw: Interval, accuracy: Accuracy) -> Interval:
    """The true difference of two rates behind the raw one: raw / (sensitivity + specificity − 1).

    The interval is MOVER's for a ratio (Donner & Zou 2012, doi 10.1177/0962280210383082). It leaves out 0 exactly where
    the raw one does: the judge's errors change how large a difference is, not whether there is one.

    Returns:
        Estimate and bounds in [-1, 1]; nan for what cannot be told: bounds where the raw ones are nan, all if the judge
        may be no better than chance.
    """
    youden = accuracy.youden
    if youden.low <= 0:
        return Interval(math.nan, math.nan, math.nan, raw.n)
    product = raw.estimate * youden.estimate

    def bound(side: int, of_raw: float, of_youden: float) -> float:
        if math.isnan(of_raw):
            return math.nan
        divisor = of_youden * (2 * youden.estimate - of_youden)
        inside = product**2 - of_raw * (2 * raw.estimate - of_raw) * divisor
        return _difference((product + side * math.sqrt(max(0.0, inside))) / divisor)

    # A bound on the other side of 0 than the estimate is farthest where the judge is worst, as the outer bound is.
    low = bound(-1, raw.low, youden.high if raw.low > 0 else youden.low)
    high = bound(1, raw.high, youden.low if raw.high > 0 else youden.high)
    return Interval(_difference(raw.estimate / youden.estimate), low, high, raw.n)


def _difference(value: float) -> float:
    """The nearest difference that two shares can have."""
    return min(1.0, max(-1.0, value))
