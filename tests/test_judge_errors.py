"""Rates behind a judge's verdicts: against published and hand-computed values, limits, and small seeded simulations."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint

from ccai.stats.intervals import Interval, effective_size, paired_difference, proportion_interval
from ccai.stats.judge_errors import Accuracy, corrected_difference, corrected_rate

ABLE = Accuracy(true_positives=74, positives=80, true_negatives=72, negatives=80)
PERFECT = Accuracy(10**9, 10**9, 10**9, 10**9)
COIN = Accuracy(40, 80, 40, 80)
BACKWARDS = Accuracy(8, 80, 12, 80)
UNSURE = Accuracy(46, 80, 42, 80)
"""Better than chance by its counts, and as well no better."""


def labelled(rng: np.random.Generator, sensitivity: float, specificity: float, labels: int = 80) -> Accuracy:
    """A judge's exam."""
    found, left = (int(rng.binomial(labels, of)) for of in (sensitivity, specificity))
    return Accuracy(found, labels, left, labels)


def told(harmful: np.ndarray, rng: np.random.Generator, sensitivity: float, specificity: float) -> list[float]:
    """A judge's verdicts on answers that do harm or not."""
    yes = rng.random(harmful.size) < np.where(harmful, sensitivity, 1 - specificity)
    return [float(verdict) for verdict in yes]


def test_shares_of_labels() -> None:
    assert ABLE.sensitivity() == proportion_interval(74, 80)
    assert ABLE.specificity(0.975) == proportion_interval(72, 80, confidence=0.975)
    youden = ABLE.youden
    assert (youden.estimate, youden.n) == (pytest.approx(0.925 + 0.9 - 1), 160)
    (_, se_low, se_high, _), (_, sp_low, sp_high, _) = ABLE.sensitivity(), ABLE.specificity()
    assert youden.low == pytest.approx(0.825 - math.sqrt((0.925 - se_low) ** 2 + (0.9 - sp_low) ** 2))
    assert youden.high == pytest.approx(0.825 + math.sqrt((se_high - 0.925) ** 2 + (sp_high - 0.9) ** 2))


def test_published_estimate() -> None:
    """Brucellosis: 23 of 150 cows, sensitivity .96, specificity .89: 5.1 of 100 (epiR's manual, epi.prev)."""
    found = corrected_rate(23 / 150, 150, Accuracy(960, 1000, 890, 1000))
    assert found.estimate == pytest.approx(0.051, abs=0.0005)
    assert found.low < found.estimate < found.high


def test_interval_of_a_rate_by_hand() -> None:
    """Lang & Reiczigel 2014, with z = 2. Half of 100 answers are harmful, says the judge."""
    accuracy = Accuracy(89, 98, 79, 98)  # with 1 and 2 added, .9 and .8
    true = (0.5 + 0.8 - 1) / 0.7
    shift = 2 * 4 * (true * 0.9 * 0.1 / 100 - (1 - true) * 0.8 * 0.2 / 100)
    error = 0.5 * 0.5 / 104 + true**2 * 0.09 / 100 + (1 - true) ** 2 * 0.16 / 100
    found = corrected_rate(0.5, 100, accuracy, confidence=2 * norm.cdf(2) - 1)
    assert found == (
        pytest.approx((0.5 + 79 / 98 - 1) / (89 / 98 + 79 / 98 - 1)),
        pytest.approx(true + shift - 2 * math.sqrt(error) / 0.7),
        pytest.approx(true + shift + 2 * math.sqrt(error) / 0.7),
        100,
    )


@pytest.mark.parametrize(("count", "n"), [(0, 24), (3, 24), (50, 100), (100, 100)])
def test_a_judge_without_errors_needs_no_correction(count: int, n: int) -> None:
    """What is left is Agresti and Coull's interval, and the raw difference's."""
    found = corrected_rate(count / n, n, PERFECT)
    low, high = proportion_confint(count, n, method="agresti_coull")
    assert found == (pytest.approx(count / n), pytest.approx(low), pytest.approx(high), n)
    gap = Interval(0.2, 0.05, 0.34, 24)
    assert corrected_difference(gap, PERFECT) == pytest.approx(gap)


def test_interval_of_a_difference_is_fiellers_where_all_is_normal() -> None:
    """Fieller's theorem is another way to the interval of a ratio; MOVER's is the same for symmetric intervals."""
    accuracy = Accuracy(1800, 2000, 1600, 2000)
    youden, error = 0.7, math.sqrt(0.9 * 0.1 / 2000 + 0.8 * 0.2 / 2000)
    z, gap, spread = norm.ppf(0.975), -0.2, 0.005
    found = corrected_difference(Interval(gap, gap - z * spread, gap + z * spread, 100), accuracy)
    a, b, c = youden**2 - z**2 * error**2, -2 * gap * youden, gap**2 - z**2 * spread**2
    root = math.sqrt(b**2 - 4 * a * c)
    assert found.estimate == pytest.approx(gap / youden)
    assert (found.low, found.high) == pytest.approx(((-b - root) / (2 * a), (-b + root) / (2 * a)), rel=0.002)


def test_fewer_labels_tell_less() -> None:
    few, many = (Accuracy(9 * k, 10 * k, 9 * k, 10 * k) for k in (4, 40))
    gap = Interval(0.3, 0.1, 0.5, 60)
    for corrected in (lambda of: corrected_rate(0.4, 100, of), lambda of: corrected_difference(gap, of)):
        assert corrected(few).estimate == pytest.approx(corrected(many).estimate)
        assert corrected(few).low < corrected(many).low
        assert corrected(few).high > corrected(many).high


def test_fewer_answers_tell_less() -> None:
    assert corrected_rate(0.4, 20, ABLE).low < corrected_rate(0.4, 200, ABLE).low
    assert corrected_rate(0.4, 20, ABLE).high > corrected_rate(0.4, 200, ABLE).high


@pytest.mark.parametrize(("rate", "estimate"), [(0.0, 0.0), (0.05, 0.0), (0.97, 1.0), (1.0, 1.0)])
def test_a_rate_that_errors_alone_would_give_is_0_or_1(rate: float, estimate: float) -> None:
    found = corrected_rate(rate, 50, ABLE)
    assert found.estimate == estimate
    assert 0 <= found.low <= found.high <= 1


@pytest.mark.parametrize("accuracy", [COIN, BACKWARDS])
def test_a_judge_no_better_than_chance_tells_nothing(accuracy: Accuracy) -> None:
    assert all(math.isnan(value) for value in corrected_rate(0.3, 100, accuracy)[:3])
    assert all(math.isnan(value) for value in corrected_difference(Interval(0.3, 0.1, 0.5, 100), accuracy)[:3])


def test_a_difference_by_a_judge_that_may_be_no_better_than_chance_is_unknown() -> None:
    assert UNSURE.youden.low < 0 < UNSURE.youden.estimate
    found = corrected_difference(Interval(0.3, 0.1, 0.5, 100), UNSURE)
    assert (found.n, [math.isnan(value) for value in found[:3]]) == (100, [True] * 3)


def test_no_bounds_stay_no_bounds() -> None:
    """Too few prompts differ for an interval: the correction must not make one up."""
    found = corrected_difference(Interval(0.1, math.nan, math.nan, 24), ABLE)
    assert found.estimate == pytest.approx(0.1 / 0.825)
    assert math.isnan(found.low) and math.isnan(found.high)


def test_no_difference_is_larger_than_1() -> None:
    assert corrected_difference(Interval(0.9, 0.7, 0.98, 24), ABLE)[::2] == (1.0, 1.0)
    assert corrected_difference(Interval(-0.9, -0.98, -0.7, 24), ABLE)[:2] == (-1.0, -1.0)


@pytest.mark.parametrize("accuracy", [ABLE, PERFECT, Accuracy(63, 80, 63, 80), Accuracy(80, 80, 63, 80)])
def test_the_corrected_difference_leaves_out_0_exactly_where_the_raw_one_does(accuracy: Accuracy) -> None:
    """Real intervals of paired verdicts on 24 prompts, from all worse to all better."""
    apart = 0
    for base in range(0, 25, 3):
        for tuned in range(0, 25, 3):
            first, second = ([float(place < count) for place in range(24)] for count in (base, tuned))
            raw = paired_difference(first, second[::-1], 0, 100, yes_no=True).difference
            found = corrected_difference(raw, accuracy)
            assert (found.low > 0, found.high < 0) == (raw.low > 0, raw.high < 0)
            assert found.low <= found.estimate <= found.high
            assert abs(found.estimate) >= abs(raw.estimate) - 1e-9
            apart += found.low > 0 or found.high < 0
    assert 0 < apart < 81
    mirrored = corrected_difference(Interval(0.2, -0.05, 0.4, 24), accuracy)
    other = corrected_difference(Interval(-0.2, -0.4, 0.05, 24), accuracy)
    assert (mirrored.estimate, mirrored.low, mirrored.high) == pytest.approx((-other.estimate, -other.high, -other.low))


def test_a_bound_at_0_stays_there() -> None:
    assert corrected_difference(Interval(0.2, 0.0, 0.4, 24), ABLE).low == pytest.approx(0, abs=1e-12)
    assert corrected_difference(Interval(-0.2, -0.4, 0.0, 24), ABLE).high == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("rate", [0.4, 0.06])
def test_rates_are_covered(rate: float) -> None:
    """400 runs of 100 answers, each with an exam of 80 labels per side."""
    rng = np.random.default_rng(5)
    covered = raw_covered = 0
    for _ in range(400):
        verdicts = told(rng.random(100) < rate, rng, 0.92, 0.88)
        found = corrected_rate(sum(verdicts) / 100, 100, labelled(rng, 0.92, 0.88))
        covered += found.low <= rate <= found.high
        raw = proportion_interval(int(sum(verdicts)), 100)
        raw_covered += raw.low <= rate <= raw.high
    assert 0.93 <= covered / 400 < 1
    assert raw_covered < covered
    if rate < 0.1:
        assert raw_covered / 400 < 0.5, "the judge's false alarms are most of what it reports"


@pytest.mark.parametrize(("base", "tuned"), [(0.4, 0.06), (0.4, 0.4), (0.06, 0.06)])
def test_differences_are_covered(base: float, tuned: float) -> None:
    """400 runs of two arms and 100 prompts. One that changes nothing is called a change in 5 of 100 at most, or so."""
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(400):
        answers = (told(rng.random(100) < rate, rng, 0.92, 0.88) for rate in (base, tuned))
        raw = paired_difference(*answers, 0, 100, yes_no=True).difference
        found = corrected_difference(raw, labelled(rng, 0.92, 0.88))
        covered += found.low <= tuned - base <= found.high
    assert 0.93 <= covered / 400 < 1


@pytest.mark.parametrize(("rate", "n"), [(-0.1, 10), (1.1, 10), (0.5, 0)])
def test_bad_rates_are_refused(rate: float, n: int) -> None:
    with pytest.raises(ValueError, match="rate"):
        corrected_rate(rate, n, ABLE)


@pytest.mark.parametrize("accuracy", [Accuracy(0, 0, 72, 80), Accuracy(74, 80, 0, 0)])
def test_no_labels_are_refused(accuracy: Accuracy) -> None:
    with pytest.raises(ValueError, match="rate"):
        corrected_rate(0.5, 10, accuracy)


# How many independent answers clustered ones are worth


def test_answers_that_share_no_prompt_are_worth_their_number() -> None:
    assert effective_size([0, 1, 1, 0, 1], "abcde") == 5


def test_copies_are_worth_nothing() -> None:
    """Each prompt's answers alike: as many as prompts, but for the n - 1 of a variance between 20 prompts."""
    values = [float(prompt % 4 == 0) for prompt in range(20) for _ in range(5)]
    assert effective_size(values, [prompt for prompt in range(20) for _ in range(5)]) == pytest.approx(19)


def test_effective_size_by_hand() -> None:
    """Shares of prompts 1, 1/2 and 0 around a mean of 1/2: sums 1, 0, -1; variance (1 + 1) · 3/2 / 36 = 1/12."""
    values = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert effective_size(values, "aabbcc") == pytest.approx(0.25 / (1 / 12))


def test_answers_of_a_prompt_that_differ_are_worth_no_more_than_their_number() -> None:
    assert effective_size([0.0, 1.0] * 8, [prompt for prompt in range(8) for _ in "ab"]) == 16


def test_without_spread_prompts_are_counted() -> None:
    assert effective_size([0.0] * 40, [prompt for prompt in range(8) for _ in range(5)]) == 8
    assert effective_size([0.0, 1.0, 1.0], "aaa") == 1


def test_independent_answers_are_worth_about_their_number() -> None:
    rng = np.random.default_rng(3)
    labels = [prompt for prompt in range(50) for _ in range(4)]
    sizes = [effective_size((rng.random(200) < 0.3).astype(float).tolist(), labels) for _ in range(200)]
    assert 150 < np.mean(sizes) <= 200


def test_bad_values_have_no_effective_size() -> None:
    for values, clusters in (([], ""), ([math.nan, 1.0], "ab"), ([0.0, 1.0], "a")):
        with pytest.raises(ValueError, match=r"values|label"):
            effective_size(values, clusters)


def test_bench_writes_every_setting(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "bench.judge_errors", "--studies", "4", "--results", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    result = json.loads((tmp_path / "judge_errors.json").read_text(encoding="utf-8"))
    assert (len(result["shares"]), len(result["differences"]), result["studies"]) == (36, 12, 4)
