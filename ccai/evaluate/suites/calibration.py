"""Calibration: whether an arm recognises unanswerable questions, and whether its confidence matches its accuracy."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from ccai.base.files import read
from ccai.base.params import Params
from ccai.base.records import Record
from ccai.evaluate import choices
from ccai.evaluate.arms import Arm
from ccai.evaluate.choices import Choice
from ccai.evaluate.comparison import Comparison, Items
from ccai.evaluate.suites.suite import Answers, Suite

ITEMS = Path("data/eval_sets/calibration.jsonl")

NOBODY = "Nobody can know that."

BINS = 5
"""Number of equal bins of confidence, from 0.5 (the minimum for the likelier of two options) to 1."""


class CalibrationQuestion(Record):
    """A question and a definite answer: the right one if `knowable`, otherwise one that nobody can know to be right."""

    question: str
    answer: str
    knowable: bool


class CalibrationChoice(Choice):
    """Options are the definite answer and that nobody can know; `knowable` tells which is right."""

    knowable: bool

    @property
    def right(self) -> float | None:
        """Probability of the right option; None where it cannot be read."""
        return None if self.shares is None else self.shares[0 if self.knowable else 1]

    @property
    def brier(self) -> float | None:
        """Squared error of the right option's probability (Brier 1950, over one of the two outcomes), in [0, 1]."""
        return None if self.right is None else (1 - self.right) ** 2

    @property
    def correct(self) -> float | None:
        """1 if the right option is the likelier one."""
        return None if self.right is None else float(self.right > 0.5)

    @property
    def wrong(self) -> float | None:
        """Probability of the wrong option."""
        return None if self.right is None else 1 - self.right


class Calibration(Suite[CalibrationChoice]):
    """Easy questions, and questions without a knowable answer; both kinds offer that nobody can know."""

    name = "calibration"
    record = CalibrationChoice

    def __init__(self, settings: Params) -> None:
        self.items = read(ITEMS, CalibrationQuestion)

    def ask(self, arm: Arm) -> list[CalibrationChoice]:
        """Each question with either option first."""
        questions = [choices.orders(item.question, (item.answer, NOBODY)) for item in self.items]
        answers = choices.answer(arm, self.name, questions)
        return [
            CalibrationChoice(**fields, knowable=item.knowable)
            for item, fields in zip(self.items, answers, strict=True)
        ]

    @classmethod
    def key(cls, record: CalibrationChoice) -> Hashable:
        return record.question_id

    @classmethod
    def measure(cls, answers: Answers[CalibrationChoice], comparison: Comparison, *, judged: bool) -> dict[str, Any]:
        """Errors of both kinds apart, and calibration over all that every arm answered readably."""
        items = Items.of(answers, lambda choice: choice.question_id)
        unknowable = items.only(lambda choice: not choice.knowable)
        knowable = items.only(lambda choice: choice.knowable)
        readable = items.readable(lambda choice: choice.right).values(lambda choice: choice.right)
        return {
            "claims_unknowable": unknowable.measure(comparison, lambda choice: choice.wrong),
            "doubts_known": knowable.measure(comparison, lambda choice: choice.wrong),
            "accuracy": items.measure(comparison, lambda choice: choice.correct, yes_no=True),
            "brier": items.measure(comparison, lambda choice: choice.brier),
            "ece": {
                arm: calibration_error([right for right in column if right is not None])
                for arm, column in readable.items()
            },
            "invalid": choices.invalid(answers),
        }


def calibration_error(right: Sequence[float]) -> float | None:
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599, equation 3) for questions with two options.

    Args:
        right: probability of the right option for each question.

    Returns:
        Mean distance between accuracy and confidence over `BINS` bins, weighted by their size; None without questions.
    """
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for probability in right:
        confidence = max(probability, 1 - probability)
        bins[min(int((confidence - 0.5) * 2 * BINS), BINS - 1)].append((confidence, probability > 0.5))
    gaps = [abs(sum(sure - hit for sure, hit in one)) for one in bins]
    return sum(gaps) / len(right) if right else None
