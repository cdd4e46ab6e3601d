"""Answers of two runs to the same items, item by item, measured as the eval stage measures two arms."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

from ccai.evaluate.comparison import Comparison
from ccai.evaluate.run import SUITES as EVALUATED
from ccai.stats.judge_errors import Accuracy

ENOUGH = 0.8
"""Share of each run's items that the other has to have as well, for the two to be compared."""

SUITES = {suite.name: suite for suite in EVALUATED}


@dataclass(frozen=True)
class Paired:
    """The records of two runs to the items that both were asked, in the order of the first.

    Attributes:
        a: of the first run. b: of the second, item by item the same.
        only_a, only_b: how many items the other run lacks.
    """

    suite: str
    a: list[Any]
    b: list[Any]
    only_a: int
    only_b: int

    @property
    def n(self) -> int:
        """Common items."""
        return len(self.a)

    @property
    def overlap(self) -> float:
        """Share of the larger run's items that are common; 0 where there are none."""
        larger = self.n + max(self.only_a, self.only_b)
        return self.n / larger if larger else 0.0


def pair(suite: str, a: Sequence[Any], b: Sequence[Any]) -> Paired:
    """The records of two runs of a suite, paired by their key."""
    key = SUITES[suite].key
    first, second = ({key(record): record for record in records} for records in (a, b))
    common = [name for name in first if name in second]
    return Paired(
        suite,
        [first[name] for name in common],
        [second[name] for name in common],
        len(first) - len(common),
        len(second) - len(common),
    )


def measure(
    pairs: Sequence[Paired],
    judged: Mapping[str, bool],
    seed: int,
    resamples: int,
    accuracies: Mapping[str, Accuracy],
) -> dict[str, Any]:
    """What each suite measures where run A's model stands for `base` and run B's for `tuned`, with Holm's p.

    Args:
        judged: by suite, whether a judge that passed its exam has read the answers of both runs.
        accuracies: of that judge, by the question of its exam.
    """
    measured: dict[str, Any] = {}
    comparison = Comparison(seed, resamples)
    for one in pairs:
        suite = SUITES[one.suite]
        of_suite = comparison.judged(accuracies.get(suite.question or ""))
        with redirect_stdout(io.StringIO()):  # what a suite says of its cells is meant for the eval stage's log
            measured[one.suite] = suite.measure({"base": one.a, "tuned": one.b}, of_suite, judged=judged[one.suite])
    comparison.adjust()
    return measured
