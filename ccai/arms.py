"""Who is evaluated: the base model, the base told the constitution, the tuned model, and any other that params name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ccai import generation, judge
from ccai.constitution import Principle
from ccai.engines.request import Engine
from ccai.generation import Job
from ccai.params import Params
from ccai.records import Message

PRINCIPLES = """{system}

Hold each answer to these principles, without naming them:
{rules}"""
"""The published prompting method: the principles stand in the system message instead of the weights."""


class Arm:
    """One of those that are evaluated.

    Attributes:
        name: `base`, `prompted`, `tuned` or a model's name.
        engine: what completes and scores for it. Arms of the same weights share one.
        costs: what each suite cost this arm, by the suite's name.
    """

    def __init__(self, name: str, engine: Engine, settings: Params, principles: Sequence[Principle] = ()) -> None:
        self.name, self.engine, self.settings = name, engine, settings
        self.costs: dict[str, dict[str, Any]] = {}
        self._principles = principles

    def system(self, message: str) -> str:
        """The system message of this arm where a suite wants `message`, which may be empty."""
        if not self._principles:
            return message
        rules = "\n\n".join(judge.rule(principle) for principle in self._principles)
        return PRINCIPLES.format(system=message, rules=rules).strip()

    def complete(self, suite: str, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Completions in the order of the jobs, as the fields of `records.Completion`; see `generation.complete`."""
        done = generation.complete(
            f"eval {suite} {self.name}", self.engine, jobs, self.settings.generation, self.settings.seed
        )
        self._count(suite, done.runtime)
        return done.completions

    def score(self, suite: str, conversations: Sequence[Sequence[Message]], labels: Sequence[str]) -> list[list[float]]:
        """Probability of each label after each conversation; see `generation.score`."""
        found = generation.score(f"eval {suite} {self.name}", self.engine, conversations, labels)
        self._count(suite, found.runtime)
        return found.probabilities

    def _count(self, suite: str, runtime: dict[str, Any]) -> None:
        before = [self.costs[suite]] if suite in self.costs else []
        self.costs[suite] = judge.total([*before, runtime])


def each(settings: Params, principles: Sequence[Principle], adapter: Path) -> Iterator[Arm]:
    """The arms of `eval.arms`, one set of weights in memory at a time: let go of an arm before asking for the next.

    An adapter changes the model object that it is put on, so the tuned arm loads weights of its own.

    Raises:
        UserError: a model can't be had or does not fit.
    """
    names = settings.eval.arms
    told = {"base": (), "prompted": principles}
    of_base = [name for name in names if name in told]
    engine = generation.load_engine(settings.models.train, settings.hardware)
    for name in of_base:
        yield Arm(name, engine, settings, told[name])
    del engine
    for name in names:
        if name in told:
            continue
        tuned = name == "tuned"
        model = settings.models.train if tuned else name
        yield Arm(name, generation.load_engine(model, settings.hardware, adapter if tuned else None), settings)
