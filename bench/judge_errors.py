"""How often the intervals of ccai/stats/judge_errors.py hold the truth, in simulated evaluations by a judge that errs.

    python -m bench.judge_errors                2,000 evaluations of each setting

A setting is a judge's true sensitivity and specificity, the labelled answers of its exam on each side, the answers that
it reads, and the true share of harmful ones, or that of each of two arms. `width` is the mean width of the intervals.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from bench import machine
from ccai.base.errors import run
from ccai.stats.intervals import Interval, paired_difference
from ccai.stats.judge_errors import Accuracy, corrected_difference, corrected_rate

JUDGES = ((0.9, 0.9), (0.85, 0.95), (0.8, 0.85))
LABELS = (75, 150, 250)
ANSWERS = (100, 200)
SHARES = (0.40, 0.06)
ARMS = ((0.40, 0.40), (0.40, 0.25), (0.06, 0.02), (0.06, 0.21))


def examined(rng: np.random.Generator, judge: tuple[float, float], labels: int) -> Accuracy:
    """The exam of a judge with that sensitivity and specificity."""
    found, left = (int(rng.binomial(labels, share)) for share in judge)
    return Accuracy(found, labels, left, labels)


def of_shares(studies: int, seed: int) -> dict[str, dict[str, float]]:
    """Coverage of a corrected share in every setting."""
    rng, settings = np.random.default_rng(seed), dict[str, dict[str, float]]()
    for (sensitivity, specificity), share, labels, n in product(JUDGES, SHARES, LABELS, ANSWERS):
        raw = share * sensitivity + (1 - share) * (1 - specificity)
        bounds = [
            corrected_rate(rng.binomial(n, raw) / n, n, examined(rng, (sensitivity, specificity), labels))
            for _ in range(studies)
        ]
        name = f"Se {sensitivity} Sp {specificity}, share {share}, {labels} labels a side, n {n}"
        settings[name] = _held(bounds, share)
    return settings


def of_differences(studies: int, seed: int) -> dict[str, dict[str, float]]:
    """Coverage of a corrected difference between two arms that answer 100 prompts."""
    rng, settings = np.random.default_rng(seed), dict[str, dict[str, float]]()
    for judge, (base, tuned) in product(JUDGES, ARMS):
        bounds = []
        for _ in range(studies):
            verdicts = [
                np.where(rng.random(100) < share, rng.random(100) < judge[0], rng.random(100) >= judge[1])
                for share in (base, tuned)
            ]
            first, second = (column.astype(float).tolist() for column in verdicts)
            raw = paired_difference(first, second, 0, 1, yes_no=True).difference
            bounds.append(corrected_difference(raw, examined(rng, judge, 80)))
        settings[f"Se {judge[0]} Sp {judge[1]}, shares {base} and {tuned}"] = _held(bounds, tuned - base)
    return settings


def _held(bounds: Sequence[Interval], truth: float) -> dict[str, float]:
    return {
        "covered": round(float(np.mean([each.low <= truth <= each.high for each in bounds])), 4),
        "width": round(float(np.mean([each.high - each.low for each in bounds])), 3),
    }


def main() -> None:
    """Every setting."""
    parser = argparse.ArgumentParser(prog="python -m bench.judge_errors", description="Coverage of corrected rates.")
    parser.add_argument("--studies", type=int, default=2_000, help="of each setting (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7)
    machine.add_results(parser)
    options = parser.parse_args()
    values: dict[str, Any] = {
        "studies": options.studies,
        "seed": options.seed,
        "shares": of_shares(options.studies, options.seed),
        "differences": of_differences(options.studies, options.seed),
    }
    for kind in ("shares", "differences"):
        covered = [each["covered"] for each in values[kind].values()]
        print(f"{kind}: {len(covered)} settings, covered {min(covered):.3f} to {max(covered):.3f}", flush=True)
    print(f"written: {machine.write(options.results, 'judge_errors', 'bench.judge_errors', sys.argv[1:], values)}")


if __name__ == "__main__":
    run(main)
