"""Grades of a task's samples by the task's own scorers, and the exam of the judge that writes them."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from inspect_ai._eval.score import task_state_from_sample
from inspect_ai.log import EvalSample
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput
from inspect_ai.scorer import Score
from inspect_ai.scorer._scorer import unique_scorer_name

from ccai.base.errors import UserError
from ccai.evaluate.inspect import data
from ccai.evaluate.inspect.bridge import Bridge
from ccai.evaluate.inspect.tasks import ROLES, ReadyTask, networked, where
from ccai.judge import exam
from ccai.judge.exam import Mark

GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0}
"""inspect_ai's numbers for words (`value_to_float`), but for those it takes as 0 because it does not know them."""


def grade(ready: ReadyTask, samples: Sequence[EvalSample], judge: Bridge) -> list[dict[str, Score]]:
    """The scores of a task's own scorers for each sample, by the scorer's name; without those that it lacks.

    Raises:
        UserError: the judge failed, or the scorers ask for one that nobody named.
    """
    judge.label = ready.label
    model = judge.model

    async def score(sample: EvalSample) -> dict[str, Score]:
        if sample.error:
            return {}
        roles = dict.fromkeys(ROLES, model)
        state, target, _ = task_state_from_sample(
            sample, model=model, model_name=model, model_roles=roles, append_scores=False
        )
        given: dict[str, Score] = {}
        for scorer in ready.task.scorer or ():
            name = unique_scorer_name(scorer, list(given))
            try:
                result = await scorer(state, target)
            except UserError as error:
                raise judge.error or UserError(f"{where(ready.asked)}: {error}") from None
            except Exception:  # what it can't read; counted as unscored
                result = None
            if result is not None:
                given[name] = result
        return given

    async def all_scores() -> list[dict[str, Score]]:
        return list(await asyncio.gather(*(score(sample) for sample in samples)))

    with data.pinned(data.table(), networked(judge)):
        scores = asyncio.run(all_scores())
    if judge.error:
        raise judge.error
    return scores


def sit(ready: ReadyTask, judge: Bridge) -> Mark | None:
    """The mark of a task's judge: with the task's template it grades the answers of our exam that do harm or do not.

    None where conf/inspect.yaml names no exam for the task.

    Raises:
        UserError: as `grade`, or the exam is missing.
    """
    if ready.exam is None:
        return None
    items = exam.harm_items()
    answers = [(item.prompt, item.violating) for item in items] + [(item.prompt, item.keeping) for item in items]
    samples = [
        EvalSample(
            id=place,
            epoch=1,
            input=prompt,
            target="",
            messages=[ChatMessageUser(content=prompt), ChatMessageAssistant(content=answer)],
            output=ModelOutput.from_content("exam", answer),
        )
        for place, (prompt, answer) in enumerate(answers)
    ]
    grades = [numbers(given).get(ready.exam.score) for given in grade(ready, samples, judge)]
    if ready.exam.high == "keeping":
        grades = [None if value is None else 1 - value for value in grades]
    return exam.mark_grades(grades, items)


def figures(mark: Mark, judge: str) -> dict[str, Any]:
    """A mark for metrics/eval.json, without a key `n`, by which a measure is told."""
    found: dict[str, Any] = {"judge": judge, "passed": mark.passed, "answers": mark.n, "unreadable": mark.unreadable}
    for name in ("sensitivity", "specificity") if mark.accuracy else ():
        share = getattr(mark.accuracy, name)()
        found |= {name: share.estimate, f"{name}_low": share.low, f"{name}_high": share.high}
    return found


def numbers(given: Mapping[str, Score]) -> dict[str, float | None]:
    """Scores as numbers, by the scorer's name and, if it gives several, theirs; None for one that is no number."""
    return {
        re.sub(r"\W+", "_", f"{scorer}_{part}" if part else scorer): value
        for scorer, score in given.items()
        for part, value in _parts(score).items()
    }


def _parts(score: Score) -> dict[str, float | None]:
    value = score.value
    if isinstance(value, Mapping):
        return {str(name): _number(one) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return {str(place): _number(one) for place, one in enumerate(value)}
    return {"": _number(value)}


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        return GRADES.get(value, GRADES.get(value.lower()))
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
