"""Ask base, tuned model and the other arms what each suite asks, and compare their answers.

python -m stages.eval
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ccai import (
    arms,
    constitution,
    evaluation,
    exam,
    judge,
    models,
    params,
    plots,
    records,
    report,
    runtime,
    versions,
)
from ccai.errors import run
from ccai.suites.bias import Bias
from ccai.suites.calibration import Calibration
from ccai.suites.capability import Capability
from ccai.suites.cooperation import Cooperation
from ccai.suites.heldout import HeldOut
from ccai.suites.helpfulness import Helpfulness
from ccai.suites.jailbreaks import Jailbreaks
from ccai.suites.over_refusal import OverRefusal
from ccai.suites.suite import Suite
from ccai.suites.traits import Traits

ADAPTER = Path("models/adapter")
ANSWERS = Path("data/eval")
METRICS = Path("metrics/eval.json")
PLOTS = Path("metrics/plots")

SUITES: tuple[type[Suite[Any]], ...] = (
    HeldOut,
    Jailbreaks,
    OverRefusal,
    Helpfulness,
    Capability,
    Cooperation,
    Traits,
    Bias,
    Calibration,
)


def main() -> None:
    """Ask, judge, compare, draw, report."""
    settings, stopwatch = params.load(), runtime.Stopwatch()
    versions.check("torch", "transformers", "peft", "lm_eval")
    suites = [kind(settings) for kind in SUITES if kind.name in settings.eval.suites]
    principles = constitution.load(settings.critiques.constitution).principles
    answers: dict[str, dict[str, list[Any]]] = {suite.name: {} for suite in suites}
    cost: dict[str, Any] = {suite.name: {"seconds": 0.0} for suite in suites}
    about: dict[str, Any] = {}
    weights: dict[str, str] = {}
    for arm in arms.each(settings, principles, ADAPTER):
        if arm.name == "base":
            about = {"model": arm.engine.name, "revision": arm.engine.revision}
        if arm.name != "tuned":  # the base's weights and an adapter
            weights[arm.engine.name] = arm.engine.revision
        for suite in suites:
            clock = runtime.Stopwatch()
            answers[suite.name][arm.name] = suite.ask(arm)
            cost[suite.name][arm.name] = arm.costs[suite.name]
            cost[suite.name]["seconds"] += clock.seconds
        del arm  # its weights, before the next are loaded
    judged_by, unverified = "rules", False
    passed: set[str] = set()
    verdicts: dict[str, Any] = {}
    questions = {suite.question for suite in suites if suite.question}
    if settings.eval.judge and questions:
        judging = judge.load(settings.models.judge, settings.hardware)
        sat = exam.sit_for("eval exam", judging, questions)
        cost["exam"] = sat.runtime
        passed = {question for question, mark in sat.questions.items() if mark.passed}
        relatives = judge.relatives(judging, weights)
        verdicts = {"judge": sat.metrics | {"relatives": relatives, "verdicts": {}}}
        if passed:
            judged_by, unverified = judging.name, judging.unverified_weights
        if relatives:
            print(f"eval: WARNING: {judging.name} is of the family it judges: {', '.join(relatives)}", flush=True)
        for suite in suites:
            if suite.question in passed:
                clock = runtime.Stopwatch()
                answers[suite.name], told = suite.judge(judging, answers[suite.name])
                verdicts["judge"]["verdicts"][suite.name] = {name: told.pop(name) for name in judge.COUNTS}
                cost[suite.name]["judge"] = told
                cost[suite.name]["seconds"] += clock.seconds
        for question in sorted(questions - passed):
            print(f"eval: {judging.name} did not pass in the question {question}; no verdicts are asked", flush=True)
    measured: dict[str, Any] = {}
    for suite in suites:
        clock = runtime.Stopwatch()
        comparison = evaluation.Comparison(settings.seed, settings.eval.resamples)
        measured[suite.name] = suite.measure(answers[suite.name], comparison, judged=suite.question in passed)
        comparison.adjust()
        cost[suite.name]["seconds"] = round(cost[suite.name]["seconds"] + clock.seconds, 1)
        print(f"eval: {suite.name} took {cost[suite.name]['seconds']:.0f} s", flush=True)
        for name, given in answers[suite.name].items():
            records.write(ANSWERS / suite.name / f"{name}.jsonl", given)
    about |= {
        "adapter": models.fingerprint(ADAPTER),
        "judged_by": judged_by,
        "unverified_weights": unverified,
        "seed": settings.seed,
        "arms": settings.eval.arms,
    }
    plots.differences(measured, PLOTS / "differences.png")
    plots.refusals(measured, PLOTS / "refusals.png")
    registered = {"registered": evaluation.registered(measured, settings.eval.primary)}
    records.write_json(METRICS, about | registered | measured | verdicts)
    runtime.write("eval", stopwatch, **cost)
    report.write()


if __name__ == "__main__":
    run(main)
