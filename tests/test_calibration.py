"""Knowing what nobody can know, and being as sure as right."""

from __future__ import annotations

from collections import Counter

import pytest
from conftest import ROOT
from helpers.chooser import choosing, preferring, shipped
from sklearn.metrics import brier_score_loss

from ccai.base.files import read
from ccai.evaluate.comparison import Comparison
from ccai.evaluate.suites.calibration import (
    ITEMS,
    NOBODY,
    Calibration,
    CalibrationChoice,
    CalibrationQuestion,
    calibration_error,
)


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> Calibration:
    monkeypatch.chdir(ROOT)
    return Calibration(shipped())


def test_the_shipped_set_is_half_and_half() -> None:
    items = read(ROOT / ITEMS, CalibrationQuestion)
    kinds = Counter(item.knowable for item in items)
    assert kinds[True] == kinds[False] >= 15
    assert len({item.answer for item in items}) == len(items)


def test_calibration_error_by_hand() -> None:
    """Bins of width 0.1: two sure at 0.95, of which one errs; one at 0.6 that is right."""
    assert calibration_error([0.95, 0.05, 0.6]) == pytest.approx((2 * abs(0.95 - 0.5) + abs(0.6 - 1)) / 3)
    assert calibration_error([1.0] * 4) == 0
    assert calibration_error([0.0] * 4) == 1
    # In each bin as often right as sure: 4 of 5 at 0.8.
    assert calibration_error([0.8, 0.8, 0.8, 0.8, 0.2]) == pytest.approx(0)
    # Even odds are confidence 0.5 and count as wrong.
    assert calibration_error([0.5]) == 0.5
    assert calibration_error([]) is None


def choice(place: int, right: float, knowable: bool, mass: float = 0.9) -> CalibrationChoice:
    first = right if knowable else 1 - right
    letters = [[first * mass, (1 - first) * mass]] * 2
    return CalibrationChoice(
        question_id=str(place), arm="x", model="m", question="?", letters=letters, knowable=knowable
    )


def test_measures_by_hand(suite: Calibration) -> None:
    right = [0.9, 0.8, 0.7, 0.6, 0.4, 0.3]
    base = [choice(at, value, at % 2 == 0) for at, value in enumerate(right)]
    tuned = [choice(at, 0.9, at % 2 == 0, mass=0.3 if at == 5 else 1.0) for at in range(6)]
    comparison = Comparison(7, 500)
    found = suite.measure({"base": base, "tuned": tuned}, comparison, judged=False)
    assert found["brier"]["n"] == 5
    # scikit-learn on "the definite answer is right" of the five that both arms answered
    truth, said = [1, 0, 1, 0, 1], [0.9, 0.2, 0.7, 0.4, 0.4]
    assert found["brier"]["base"]["mean"] == pytest.approx(brier_score_loss(truth, said))
    assert found["accuracy"]["base"]["mean"] == 0.8
    assert found["claims_unknowable"]["base"]["mean"] == pytest.approx((0.2 + 0.4) / 2)
    assert found["doubts_known"]["base"]["mean"] == pytest.approx((0.1 + 0.3 + 0.6) / 3)
    assert found["ece"]["tuned"] == pytest.approx(0.1)
    assert found["invalid"] == {"base": 0, "tuned": pytest.approx(1 / 6)}


def test_a_model_that_always_doubts_and_one_that_never_does(suite: Calibration) -> None:
    answers = {}
    for name, share in (("base", 0.1), ("tuned", 0.9)):
        with choosing(preferring(NOBODY, share=share), name=name) as (server, arm):
            answers[name] = suite.ask(arm)
        assert len(server.questions) == 2 * len(suite.items)
    found = suite.measure(answers, Comparison(7, 500), judged=False)
    assert found["claims_unknowable"]["base"]["mean"] == pytest.approx(0.9)
    assert found["doubts_known"]["tuned"]["mean"] == pytest.approx(0.9)
    assert found["accuracy"]["difference"]["tuned"]["mean"] == 0
