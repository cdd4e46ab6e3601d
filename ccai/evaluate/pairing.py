"""Answers of two runs to the same items, item by item, measured as the eval stage measures two arms."""

from __future__ import annotations

import io
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

from ccai.base.hashing import digest
from ccai.evaluate.comparison import Comparison
from ccai.evaluate.suites.bias import Bias
from ccai.evaluate.suites.calibration import Calibration
from ccai.evaluate.suites.capability import Capability
from ccai.evaluate.suites.cooperation import Cooperation
from ccai.evaluate.suites.heldout import HeldOut
from ccai.evaluate.suites.helpfulness import Helpfulness
from ccai.evaluate.suites.jailbreaks import Jailbreaks
from ccai.evaluate.suites.over_refusal import OverRefusal
from ccai.evaluate.suites.suite import Suite
from ccai.evaluate.suites.traits import Traits

ENOUGH = 0.8
"""Share of each run's items that the other has to have as well, for the two to be compared."""

Key = Callable[[Any], Hashable]
"""What tells the records of a suite apart, and is the same in two runs that asked the same."""

SUITES: dict[str, tuple[type[Suite[Any]], Key]] = {
    "heldout": (HeldOut, lambda answer: answer.prompt_id),
    "jailbreaks": (
        Jailbreaks,
        lambda attempt: (attempt.prompt_id, attempt.wrapper, attempt.system, attempt.asked),
    ),
    "over_refusal": (OverRefusal, lambda reply: reply.prompt_id),
    "helpfulness": (Helpfulness, lambda reply: (reply.question, reply.turn)),
    "capability": (
        Capability,
        lambda done: (done.asked, done.task, done.filter, done.place, digest(done.document)),
    ),
    "cooperation": (Cooperation, lambda game: (game.game_id, game.payoffs, game.words)),
    "traits": (Traits, lambda choice: choice.question_id),
    "bias": (Bias, lambda choice: choice.question_id),
    "calibration": (Calibration, lambda choice: choice.question_id),
}
"""The suites, and the key of their records."""


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
    key = SUITES[suite][1]
    first, second = ({key(record): record for record in records} for records in (a, b))
    common = [name for name in first if name in second]
    return Paired(
        suite,
        [first[name] for name in common],
        [second[name] for name in common],
        len(first) - len(common),
        len(second) - len(common),
    )


def measure(pairs: Sequence[Paired], judged: Mapping[str, bool], seed: int, resamples: int) -> dict[str, Any]:
    """What each suite measures where run A's model stands for `base` and run B's for `tuned`, with Holm's p.

    Args:
        judged: by suite, whether a judge that passed its exam has read the answers of both runs.
    """
    measured: dict[str, Any] = {}
    for one in pairs:
        comparison = Comparison(seed, resamples)
        with redirect_stdout(io.StringIO()):  # what a suite says of its cells is meant for the eval stage's log
            measured[one.suite] = SUITES[one.suite][0].measure(
                {"base": one.a, "tuned": one.b}, comparison, judged=judged[one.suite]
            )
        comparison.adjust()
    return measured
