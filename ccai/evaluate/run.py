"""One evaluation: every arm answers the suites, a judge reads the answers, every suite measures them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ccai.base import timing
from ccai.base.params import Params
from ccai.constitution import principles as constitution
from ccai.evaluate import arms
from ccai.evaluate.comparison import Comparison
from ccai.evaluate.suites.bias import Bias
from ccai.evaluate.suites.calibration import Calibration
from ccai.evaluate.suites.capability import Capability
from ccai.evaluate.suites.cooperation import Cooperation
from ccai.evaluate.suites.heldout import HeldOut
from ccai.evaluate.suites.helpfulness import Helpfulness
from ccai.evaluate.suites.inspect import InspectSuite
from ccai.evaluate.suites.jailbreaks import Jailbreaks
from ccai.evaluate.suites.over_refusal import OverRefusal
from ccai.evaluate.suites.suite import Suite
from ccai.evaluate.suites.traits import Traits
from ccai.judge import exam, judge
from ccai.stats.judge_errors import Accuracy

Suites = Sequence[Suite[Any]]

Answers = dict[str, dict[str, list[Any]]]
"""Records by suite and arm."""

SUITES: tuple[type[Suite[Any]], ...] = (
    HeldOut,
    Jailbreaks,
    OverRefusal,
    Helpfulness,
    Capability,
    InspectSuite,
    Cooperation,
    Traits,
    Bias,
    Calibration,
)


class Read(NamedTuple):
    """Who judged the answers, its accuracy in the questions that it passed, and what metrics/eval.json says of that."""

    by: str
    unverified_weights: bool
    passed: Mapping[str, Accuracy]
    metrics: dict[str, Any]


def ask(settings: Params, suites: Suites, adapter: Path, cost: dict[str, Any]) -> tuple[Answers, dict[str, str]]:
    """Answers by suite and arm; and revisions of all weights but the adapter, by the model's name, the base first."""
    principles = constitution.load(settings.critiques.constitution).principles
    answers: Answers = {suite.name: {} for suite in suites}
    weights: dict[str, str] = {}
    for arm in arms.each(settings, principles, adapter):
        if arm.name != "tuned":  # the base's weights and an adapter
            weights[arm.engine.name] = arm.engine.revision
        jobs = {suite.name: of_suite for suite in suites if (of_suite := suite.jobs(arm))}
        shared = arm.complete_together(jobs) if jobs else {}
        for suite in suites:
            clock = timing.Stopwatch()
            answers[suite.name][arm.name] = suite.ask(arm)
            cost[suite.name][arm.name] = arm.costs[suite.name]
            cost[suite.name]["seconds"] += shared.get(suite.name, 0.0) + clock.seconds
        del arm  # its weights, before the next are loaded
    for suite in suites:
        clock = timing.Stopwatch()
        answers[suite.name], grading = suite.grade(answers[suite.name])
        if grading:
            cost[suite.name]["grading"] = grading
            cost[suite.name]["seconds"] += clock.seconds
    return answers, weights


def let_judge(
    settings: Params, suites: Suites, answers: Answers, weights: Mapping[str, str], cost: dict[str, Any]
) -> Read:
    """Have a judge that passes its exam read the answers that are to be read; they get its verdicts."""
    questions = {suite.question for suite in suites if suite.question}
    if not (settings.eval.judge and questions):
        return Read("rules", False, {}, {})
    engine = judge.load(settings.models.judge, settings.hardware)
    sat = exam.sit_for("eval exam", engine, questions)
    cost["exam"] = sat.runtime
    passed = {question: mark.accuracy for question, mark in sat.questions.items() if mark.passed and mark.accuracy}
    relatives = judge.relatives("eval", engine, weights)
    verdicts = {}
    for suite in suites:
        if suite.question in passed:
            clock = timing.Stopwatch()
            answers[suite.name], judge_cost = suite.judge(engine, answers[suite.name], sat.cuts[suite.question])
            verdicts[suite.name] = {name: judge_cost.pop(name) for name in judge.COUNTS}
            cost[suite.name]["judge"] = judge_cost
            cost[suite.name]["seconds"] += clock.seconds
    for question in sorted(questions - passed.keys()):
        print(f"eval: {engine.name} did not pass in the question {question}; no verdicts are asked", flush=True)
    metrics = {"judge": sat.metrics | {"relatives": relatives, "verdicts": verdicts}}
    return Read(engine.name if passed else "rules", bool(passed) and engine.unverified_weights, passed, metrics)


def measure(
    settings: Params, suites: Suites, answers: Answers, passed: Mapping[str, Accuracy], cost: dict[str, Any]
) -> dict[str, Any]:
    """What each suite measures; by its name."""
    measured: dict[str, Any] = {}
    comparison = Comparison(settings.seed, settings.eval.resamples)
    for suite in suites:
        clock = timing.Stopwatch()
        of_suite = comparison.judged(passed.get(suite.question or ""))
        measured[suite.name] = suite.measure(answers[suite.name], of_suite, judged=suite.question in passed)
        for part, notes in suite.notes().items():
            measured[suite.name][part] |= notes
        cost[suite.name]["seconds"] = round(cost[suite.name]["seconds"] + clock.seconds, 1)
        print(f"eval: {suite.name} took {cost[suite.name]['seconds']:.0f} s", flush=True)
    comparison.adjust()
    return measured
