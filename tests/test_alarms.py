"""Warnings come when they are due, and never for a healthy run or for SFT."""

from __future__ import annotations

import csv

from helpers.project import Built

from ccai.train.warnings import detect


def steps(accuracies: list[float], chosen: list[float]) -> list[dict[str, float]]:
    rows = enumerate(zip(accuracies, chosen, strict=True), start=1)
    return [
        {"step": step, "loss": 0.5, "rewards/accuracies": accuracy, "rewards/chosen": reward}
        for step, (accuracy, reward) in rows
    ]


def test_training_names_its_figures_so(built: Built) -> None:
    curve = built.project.folder / "metrics/plots/train.csv"
    row = next(csv.DictReader(curve.read_text(encoding="utf-8").splitlines()))
    assert row.keys() >= steps([0], [0.0])[0].keys()


def test_healthy_run() -> None:
    assert detect(steps([0, 0.5, 0.75, 1, 1, 1, 1, 1], [0.0, 0.0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3]), 8, 0.1) == {}
    assert detect([], 8, 0.1) == {}
    assert detect([{"step": 1, "loss": 2.0}] * 9, 8, 0.1) == {}


def test_trivially_separable_pairs() -> None:
    said = detect(steps([0, 1, 1, 1], [0.0, 0.1, 0.1, 0.1]), 8, 0.1)
    assert said["separable"].startswith("reward accuracy 1.0 in steps 2 to 4: something simple")
    assert not detect(steps([0, 1, 1], [0.0, 0.1, 0.1]), 8, 0.1), "too early to say"
    assert not detect(steps([0, 1, 1, 1], [0.0, 0.1, 0.1, 0.1]), 2, 0.1), "6 pairs may be right by chance"
    assert "separable" in detect(steps([0] + [1] * 8, [0.0] + [0.1] * 8), 2, 0.1)


def test_falling_log_probs_of_chosen_answers() -> None:
    falling = [0.0, -0.05, -0.1, -0.2, -0.3, -0.4, -0.5, -0.6]
    said = detect(steps([0.5] * 8, falling), 8, 0.1)
    assert said["falling"].startswith("log-probs of chosen answers are 5.5 nats below the reference's")
    assert not detect(steps([0.5] * 8, falling), 8, 1.0), "0.55 nats"
    assert not detect(steps([0.5] * 8, falling[::-1]), 8, 0.1), "they have come back"


def test_falling_begins_one_nat_below_the_reference() -> None:
    """Mean over the last quarter of the steps, in nats: rewards over beta."""
    for nats, warned in ((1.01, True), (0.99, False)):
        chosen = [0.0] * 6 + [-0.3 * nats * share for share in (0.5, 1.5)]
        assert ("falling" in detect(steps([0.5] * 8, chosen), 8, 0.3)) == warned
    assert not detect(steps([0.5] * 5, [-9.0] * 5), 8, 0.1), "too early to say"
