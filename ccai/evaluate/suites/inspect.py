"""Inspect: tasks of inspect_evals by name, with each score that their own scorers give a sample."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ccai.base import cache
from ccai.base.errors import UserError
from ccai.base.params import Generation, Params
from ccai.base.records import Record
from ccai.evaluate.arms import Arm
from ccai.evaluate.comparison import Comparison, Items
from ccai.evaluate.suites.suite import Answers, Suite
from ccai.generate import completions

if TYPE_CHECKING:
    from inspect_ai.log import EvalSample
    from inspect_ai.scorer import Score

    from ccai.evaluate.inspect.bridge import Bridge
    from ccai.evaluate.inspect.tasks import ReadyTask

GREEDY = Generation(temperature=0.0, min_p=0.0, repetition_penalty=1.0)
"""How a judge writes, unless its task says otherwise."""


class InspectedSample(Record):
    """An arm's answer to one sample of a task, and its scores.

    Attributes:
        task: the name in `eval.inspect.tasks`, with the arguments (`InspectTask.label`).
        sample: the task's id of it. `epoch`: from 1, if the task asks several times.
        prompt: what the user said last, as the task asks it.
        response: the last answer; empty where the task failed on this sample.
        judge: who graded, by the name in params.yaml; None: the task's rules.
        scores: by the scorer's name and, if it gives several, theirs. None: no score.
        explanations: what the judge wrote, by scorer.
    """

    arm: str
    task: str
    sample: str
    epoch: int
    prompt: str
    target: str
    response: str
    judge: str | None
    scores: dict[str, float | None]
    explanations: dict[str, str]


class InspectSuite(Suite[InspectedSample]):
    """Any task of text, in the task's own words. Answers of all arms are graded after all have answered."""

    name = "inspect"
    record = InspectedSample

    def __init__(self, settings: Params) -> None:
        if missing := [package for package in ("inspect_ai", "inspect_evals") if find_spec(package) is None]:
            raise UserError(
                f"eval.suites: inspect needs {' and '.join(missing)}; pip install -r requirements-inspect.txt"
            )
        # Read when inspect_evals is imported: no task finds what another program has fetched, unpinned.
        os.environ["INSPECT_EVALS_CACHE_DIR"] = str(cache.folder("inspect/evals").resolve())
        from ccai.evaluate.inspect import tasks
        from ccai.evaluate.inspect.bridge import Bridge

        self._settings, params = settings, settings.eval.inspect
        self._judges: dict[str | None, Bridge] = {
            name: Bridge(f"eval inspect by {name}", GREEDY, params.max_new_tokens, settings.seed)
            for name in dict.fromkeys(task.judge for task in params.tasks)
        }
        self._nobody = Bridge("eval inspect", GREEDY, params.max_new_tokens, settings.seed)
        self._tasks = tasks.load(params.tasks, self._judges, settings.seed)
        self._notes: dict[str, dict[str, Any]] = {}
        self._samples: dict[str, dict[str, list[EvalSample]]] = {}

    def ask(self, arm: Arm) -> list[InspectedSample]:
        """All tasks at once, so that their samples share batches; not graded yet."""
        from ccai.evaluate.inspect import tasks
        from ccai.evaluate.inspect.bridge import Bridge

        stage, limit = f"eval {self.name} {arm.name}", self._settings.eval.inspect.max_new_tokens
        bridge = Bridge(stage, self._settings.generation, limit, self._settings.seed, arm.system)
        bridge.engine = arm.engine
        graders = [self._nobody, *self._judges.values()]
        for grader in graders:
            grader.refusal = "has answers graded while it asks for others; that is not supported: take it out"
        self._samples[arm.name] = tasks.ask(self._tasks, bridge, graders)
        if bridge.costs:
            arm.costs[self.name] = completions.total(bridge.costs)
        return [
            _record(arm.name, ready, sample, {})
            for ready in self._tasks
            for sample in self._samples[arm.name][ready.label]
        ]

    def grade(self, answers: Answers[InspectedSample]) -> tuple[dict[str, list[InspectedSample]], dict[str, Any]]:
        """The answers with the scores of each task's own scorers; one judge's weights in memory at a time."""
        scores: dict[tuple[str, str], list[dict[str, Score]]] = {}
        costs: dict[str, Any] = {}
        for name, judge in self._judges.items():
            judge.refusal = "has its answers graded by a model; name one of conf/models.yaml as judge"
            if name is not None:
                judge.engine = completions.load_engine(name, self._settings.hardware)
            for ready in self._tasks:
                if ready.asked.judge == name:
                    scores |= self._grades(ready, judge)
            if name is not None and judge.costs:
                costs[name] = completions.total(judge.costs)
            judge.engine = None
        graded = {
            arm: [
                _record(arm, ready, sample, given)
                for ready in self._tasks
                for sample, given in zip(of_arm[ready.label], scores[arm, ready.label], strict=True)
            ]
            for arm, of_arm in self._samples.items()
        }
        return graded, costs

    def _grades(self, ready: ReadyTask, judge: Bridge) -> dict[tuple[str, str], list[dict[str, Score]]]:
        """A task's scores by arm and label; none by a judge that fails its exam."""
        from ccai.evaluate.inspect import grading

        name = ready.asked.judge
        if name is not None:
            mark = grading.sit(ready, judge)
            if mark is None:
                print(f"eval inspect: WARNING: {ready.label} has no exam; its judge {name} is unexamined", flush=True)
                self._notes[ready.label] = {"exam": {"judge": name, "passed": "no exam"}}
            else:
                self._notes[ready.label] = {"exam": grading.figures(mark, name)}
                if not mark.passed:
                    print(f"eval inspect: {name} failed its exam for {ready.label}; no grades are asked", flush=True)
                    return {(arm, ready.label): [{} for _ in of[ready.label]] for arm, of in self._samples.items()}
        return {
            (arm, ready.label): grading.grade(ready, samples[ready.label], judge)
            for arm, samples in self._samples.items()
        }

    def notes(self) -> dict[str, dict[str, Any]]:
        return self._notes

    @classmethod
    def key(cls, record: InspectedSample) -> Hashable:
        return (record.task, record.sample, record.epoch, record.target)

    @classmethod
    def measure(cls, answers: Answers[InspectedSample], comparison: Comparison, *, judged: bool) -> dict[str, Any]:
        """By task each score, over the samples that have it for every arm; and by arm how many lack one."""
        by_task = Items.of(answers, lambda record: record.sample).by(lambda record: record.task)
        return {task: _measures(items, comparison) for task, items in by_task.items()}


def _measures(items: Items[InspectedSample], comparison: Comparison) -> dict[str, Any]:
    records = [record for row in items.rows for record in row]
    names = list(dict.fromkeys(name for record in records for name in record.scores))
    names = [name for name in names if any(record.scores.get(name) is not None for record in records)] or names
    measured: dict[str, Any] = {}
    for name in names:
        values = items.values(lambda record, name=name: record.scores.get(name))  # type: ignore[misc]
        yes_no = all(value in (0, 1, None) for column in values.values() for value in column)
        measured[name] = comparison.measure(values, [row[0].sample for row in items.rows], yes_no=yes_no)
    unscored = {
        arm: sum(not names or any(row[at].scores.get(name) is None for name in names) for row in items.rows)
        for at, arm in enumerate(items.arms)
    }
    return {**measured, "unscored": unscored}


def _record(arm: str, ready: ReadyTask, sample: EvalSample, given: dict[str, Score]) -> InspectedSample:
    from ccai.evaluate.inspect import grading

    judge = ready.asked.judge
    said = {scorer: score.explanation or "" for scorer, score in given.items()} if judge else {}
    return InspectedSample(
        arm=arm,
        task=ready.label,
        sample=str(sample.id),
        epoch=sample.epoch,
        prompt=_prompt(sample),
        target=_joined(sample.target),
        response=sample.output.completion if sample.output.choices else "",
        judge=judge,
        scores=grading.numbers(given),
        explanations=said,
    )


def _prompt(sample: EvalSample) -> str:
    asked = [message.text for message in sample.messages if message.role == "user"]
    return asked[-1] if asked else ""


def _joined(target: str | Sequence[str]) -> str:
    return target if isinstance(target, str) else " | ".join(target)
