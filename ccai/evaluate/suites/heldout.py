"""Held-out prompts: refusals by kind of prompt, safety, tone, length, and a judge's verdict on harm."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, NamedTuple

from ccai.base.files import read
from ccai.base.params import Params
from ccai.base.records import HARMLESS, Answer, Prompt, hazardous
from ccai.constitution import dialogue
from ccai.engines.base import Engine
from ccai.evaluate.arms import Arm
from ccai.evaluate.comparison import Comparison, Items
from ccai.evaluate.suites.suite import Answers, Suite
from ccai.generate.completions import Job
from ccai.judge import judge
from ccai.rules import scores
from ccai.rules.outcomes import refused, violated

PROMPTS = Path("data/prompts/eval.jsonl")


class HeldOut(Suite[Answer]):
    """Prompts of the training sources that were held out from training."""

    name = "heldout"
    record = Answer
    question = "harm"

    def __init__(self, settings: Params) -> None:
        self._params = settings.responses
        self.prompts = read(PROMPTS, Prompt)

    def count(self, measure: str) -> int | None:
        """Prompts by their labels."""
        harmless = sum(prompt.hazard in HARMLESS for prompt in self.prompts)
        return {"judge.harmful": len(self.prompts) - harmless, "refusal.harmless_refused": harmless}.get(measure)

    def jobs(self, arm: Arm) -> list[Job]:
        """Requests in the format of the responses stage, with the same length limit."""
        system = arm.system(self._params.system)
        return [
            Job(
                ("answer", prompt.prompt_id),
                dialogue.to_answer(system, prompt.text),
                self._params.max_new_tokens,
            )
            for prompt in self.prompts
        ]

    def ask(self, arm: Arm) -> list[Answer]:
        """One answer to each prompt."""
        done = arm.complete(self.name, self.jobs(arm))
        return [by_rules(prompt, arm.name, fields) for prompt, fields in zip(self.prompts, done, strict=True)]

    def judge(
        self, engine: Engine, answers: Answers[Answer], cut: float
    ) -> tuple[dict[str, list[Answer]], dict[str, Any]]:
        """Sets `harmful` of every answer."""
        return judge.harm("eval judge", engine, [prompt.text for prompt in self.prompts], answers, cut)

    @classmethod
    def key(cls, record: Answer) -> Hashable:
        return record.prompt_id

    @classmethod
    def measure(cls, answers: Answers[Answer], comparison: Comparison, *, judged: bool) -> dict[str, Any]:
        """`MEASURES`, those of the judge only if `judged`, and refusals by hazard."""
        items, apart = Items.of(answers, lambda answer: answer.prompt_id), comparison.apart()
        measured: dict[str, Any] = {}
        for (family, name), one in MEASURES.items():
            if judged or family != "judge":
                result = items.only(one.counts).measure(
                    comparison, one.value, yes_no=one.yes_no, by_judge=family == "judge"
                )
                measured.setdefault(family, {})[name] = result
        if judged:
            measured["judge"]["invalid"] = items.unreadable(lambda answer: answer.harmful)
        by_hazard = sorted(items.only(_hazardous).by(lambda answer: answer.hazard).items())
        measured["by_hazard"] = {hazard: of.measure(apart, _refused, yes_no=True) for hazard, of in by_hazard}
        return measured


def by_rules(prompt: Prompt, arm: str, completion: dict[str, Any]) -> Answer:
    """An answer with its refusal class and rule scores."""
    text = completion["text"]
    return Answer(
        **completion,
        prompt_id=prompt.prompt_id,
        arm=arm,
        hazard=prompt.hazard,
        refusal=scores.refusal(prompt.text, text),
        scores=scores.scores(prompt.text, text),
        harmful=None,
    )


class Measure(NamedTuple):
    """Which answers count, the value of each, and whether it is an outcome, 0 or 1."""

    counts: Callable[[Answer], bool]
    value: Callable[[Answer], float | None]
    yes_no: bool


def _everywhere(answer: Answer) -> bool:
    return True


def _hazardous(answer: Answer) -> bool:
    return hazardous(answer.hazard)


def _refused(answer: Answer) -> bool:
    return refused(answer.refusal)


def _score(name: str) -> Callable[[Answer], float]:
    return lambda answer: answer.scores[name]


MEASURES: dict[tuple[str, str], Measure] = {
    ("refusal", "hazardous_refused"): Measure(_hazardous, _refused, True),
    ("refusal", "harmless_refused"): Measure(lambda answer: answer.hazard in HARMLESS, _refused, True),
    ("judge", "harmful"): Measure(
        lambda answer: answer.hazard not in HARMLESS, lambda answer: violated(answer.harmful), True
    ),
    **{
        (family, name): Measure(_hazardous if family == "safety" else _everywhere, _score(name), False)
        for family, names in scores.FAMILIES.items()
        for name in names
    },
    ("length", "tokens"): Measure(_everywhere, lambda answer: answer.completion_tokens, False),
    ("length", "ended"): Measure(_everywhere, lambda answer: answer.finish_reason == "stop", True),
}
"""By family and name, as in metrics/eval.json. Refusals of hazardous prompts are wanted, those of harmless ones not;
safety covers hazardous prompts only, harm all that are not labelled harmless, tone and length all.
"""
