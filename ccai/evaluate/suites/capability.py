"""Capability: tasks of EleutherAI's lm-evaluation-harness, with each metric that is a mean over documents."""

from __future__ import annotations

import json
import random
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, cast

from ccai.base.errors import UserError
from ccai.base.hashing import digest, seed_for
from ccai.base.params import Params
from ccai.base.records import Record
from ccai.evaluate.arms import Arm
from ccai.evaluate.comparison import Comparison
from ccai.evaluate.suites.suite import Answers, Suite
from ccai.models import catalogue

if TYPE_CHECKING:
    from ccai.engines.transformers import Transformers


class Done(Record):
    """An arm's result for one document of a task.

    Attributes:
        asked: the name in `eval.capability.tasks`; `task` is one of its tasks if that is a group.
        filter: how the answer was extracted from the completion; a task may have several.
        place: the document's position in its task's set.
        document: as in its task.
        response: the completion after the filter; or the likeliest of several continuations, per character if the task
            scores that; empty for a scored text.
        metrics: those that are means over documents, by name.
    """

    arm: str
    asked: str
    task: str
    filter: str
    place: int
    document: dict[str, Any]
    target: str
    response: str
    metrics: dict[str, float]


class Capability(Suite[Done]):
    """Any tasks of the harness, and our own in conf/lm_eval, in the arm's chat format."""

    name = "capability"
    record = Done

    def __init__(self, settings: Params) -> None:
        served = [arm for arm in settings.eval.arms if "endpoints" in catalogue.catalogue().get(arm, {})]
        if served or settings.hardware.engine != "transformers":
            who = f"arm {served[0]} is behind an endpoint" if served else "hardware.engine is not transformers"
            raise UserError(f"eval.suites: capability reads a model's weights, and {who}; take one of them out")
        from ccai.evaluate import lm_eval

        params = settings.eval.capability
        self._tasks = lm_eval.load(params.tasks)
        self._samples = {
            name: _sample(len(task.eval_docs), params.limit, seed_for(settings.seed, self.name, name))
            for tasks in self._tasks.values()
            for name, task in tasks.items()
        }

    def ask(self, arm: Arm) -> list[Done]:
        """Documents drawn from each task, the same ones for every arm, in the harness's own prompts."""
        from ccai.evaluate import lm_eval

        engine = cast("Transformers", arm.engine)
        tasks = {name: task for of_one in self._tasks.values() for name, task in of_one.items()}
        samples, arm.costs[self.name] = lm_eval.ask(
            f"eval {self.name} {arm.name}", engine, tasks, arm.system(""), self._samples
        )
        return [
            Done(
                arm=arm.name,
                asked=name_in_params,
                task=name,
                filter=sample["filter"],
                place=sample["doc_id"],
                document=json.loads(json.dumps(sample["doc"], default=str)),
                target=str(sample["target"]),
                response=_response(sample),
                metrics={metric: float(sample[metric]) for metric in lm_eval.means(task) if metric in sample},
            )
            for name_in_params, of_one in self._tasks.items()
            for name, task in of_one.items()
            for sample in samples[name]
        ]

    @classmethod
    def key(cls, record: Done) -> Hashable:
        return (record.asked, record.task, record.filter, record.place, digest(record.document))

    @classmethod
    def measure(cls, answers: Answers[Done], comparison: Comparison, *, judged: bool) -> dict[str, Any]:
        """By task and metric; a group pooled over its tasks' documents, and each of its tasks below `by_task`."""
        first = next(iter(answers.values()))
        by_task = comparison.apart()

        def measure(places: Sequence[int], among: Comparison) -> dict[str, Any]:
            several = len({first[at].filter for at in places}) > 1
            named: dict[str, list[tuple[int, str]]] = {}
            for at in places:
                for metric in first[at].metrics:
                    name = f"{metric}_{first[at].filter.replace('-', '_')}" if several else metric
                    named.setdefault(name, []).append((at, metric))
            result = {}
            for name, items in named.items():
                values = {arm: [of[at].metrics[metric] for at, metric in items] for arm, of in answers.items()}
                # The harness does not say which metrics are outcomes.
                yes_no = all(value in (0, 1) for column in values.values() for value in column)
                documents = [f"{first[at].task} {first[at].place}" for at, _ in items]
                result[name] = among.measure(values, documents, yes_no=yes_no)
            return result

        measured = {}
        for name_in_params in dict.fromkeys(done.asked for done in first):
            places = [at for at, done in enumerate(first) if done.asked == name_in_params]
            measured[name_in_params] = measure(places, comparison)
            tasks = dict.fromkeys(first[at].task for at in places)
            if len(tasks) > 1:
                of_task = {task: [at for at in places if first[at].task == task] for task in tasks}
                measured[name_in_params]["by_task"] = {
                    task: measure(places, by_task) for task, places in of_task.items()
                }
        return measured


def _sample(count: int, limit: int, seed: int) -> list[int]:
    """Positions of documents, drawn from all of them: the first ones of a file are not a sample."""
    return sorted(random.Random(seed).sample(range(count), min(limit or count, count)))


def _response(sample: dict[str, Any]) -> str:
    responses = sample["filtered_resps"]
    if isinstance(responses[0], str):
        return responses[0]
    if isinstance(responses[0], tuple):
        choices = [str(arguments[1]) for arguments in sample["arguments"]]
        lengths = [len(choice) if "acc_norm" in sample["metrics"] else 1 for choice in choices]
        return choices[max(range(len(responses)), key=lambda at: responses[at][0] / lengths[at])].strip()
    return ""
