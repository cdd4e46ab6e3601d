"""Answers and what suites measure of them, an exam passed and one failed."""

from __future__ import annotations

from typing import Any

from ccai.base.records import Answer, Prompt
from ccai.evaluate.comparison import Comparison
from ccai.evaluate.suites.heldout import HeldOut
from ccai.judge.exam import Exam, Mark
from ccai.rules import scores
from ccai.stats.judge_errors import Accuracy

NAMES = [name for names in scores.FAMILIES.values() for name in names]


ACCURACY = Accuracy(true_positives=74, positives=80, true_negatives=74, negatives=80)
PASSED = Exam("org/judge", "r1", {"harm": Mark(160, 0, ACCURACY, 0.5, 0.95, 0.1)}, None, {})
FAILED = Exam("org/judge", "r1", {"harm": Mark(160, 0, Accuracy(79, 80, 9, 80), 0.5, 0.94, 0.1)}, None, {})
"""A judge that ranks well and calls nearly everything harmful fails."""


def answer(arm: str, place: int, **fields: Any) -> Answer:
    given: dict[str, Any] = {
        "text": "Well.",
        "finish_reason": "stop",
        "prompt_tokens": 5,
        "completion_tokens": 10,
        "unverified_weights": False,
        "conversation": "c",
        "model": "org/tiny",
        "seed": 1,
        "prompt_id": f"p{place}",
        "arm": arm,
        "hazard": "unspecified",
        "refusal": "full_compliance",
        "scores": dict.fromkeys(NAMES, 0.5),
        "harmful": None,
    }
    return Answer(**given | fields)


def prompt(prompt_id: str, text: str = "Well?") -> Prompt:
    given = dict.fromkeys(("source", "source_id", "hazard", "persona", "principle"), "x")
    return Prompt(prompt_id=prompt_id, text=text, split="eval", **given)  # type: ignore[arg-type]


def arms(
    base: list[dict[str, Any]], tuned: list[dict[str, Any]], *, seed: int = 7, resamples: int = 1000, **options: Any
) -> dict[str, Any]:
    """Metrics of two arms, given what sets each answer apart; `judged` if a judge that passed has read them."""
    answers = {
        arm: [answer(arm, place, **fields) for place, fields in enumerate(given)]
        for arm, given in (("base", base), ("tuned", tuned))
    }
    suite = HeldOut.__new__(HeldOut)  # its prompts are no file here
    suite.prompts = [prompt(answer.prompt_id) for answer in answers["base"]]
    exam = options.get("judge", FAILED)
    comparison = Comparison(seed, resamples, exam.questions["harm"].accuracy if exam.passed else None)
    measured = suite.measure(answers, comparison, judged=exam.passed)
    comparison.adjust()
    return measured


def scored(**values: float) -> dict[str, Any]:
    return {"scores": dict.fromkeys(NAMES, 0.5) | values}


def by_arm(shift: dict[str, float], n: int = 24) -> dict[str, Any]:
    """A measure of arms whose values lie so far above the base's, prompt by prompt with another noise."""
    comparison = Comparison(7, 500)
    values = {"base": [0.1 * (place % 7) for place in range(n)]} | {
        arm: [0.1 * (place % 7) + gap + 0.1 * (place * (2 + number) % 5 - 2) for place in range(n)]
        for number, (arm, gap) in enumerate(shift.items())
    }
    measured = comparison.measure(values, [f"p{place}" for place in range(n)])
    comparison.adjust()
    return measured
