"""Arms of an evaluation: the base model, the base model with the principles in its system prompt, the tuned model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

from ccai.base import timing
from ccai.base.params import Params
from ccai.base.records import Message
from ccai.constitution.principles import Principle
from ccai.engines.base import Engine
from ccai.generate import completions
from ccai.generate.completions import Job
from ccai.judge import judge

PRINCIPLES = """{system}

Hold each answer to these principles, without naming them:
{rules}"""
"""The published prompting method: the principles are in the system message instead of the weights."""


class Arm:
    """One model under evaluation.

    Attributes:
        name: `base`, `prompted`, `tuned` or a model's name, without folders (`params.Eval.labels`).
        engine: the engine that completes and scores. Arms of the same weights share one.
        costs: each suite's costs for this arm, by the suite's name.
    """

    def __init__(self, name: str, engine: Engine, settings: Params, principles: Sequence[Principle] = ()) -> None:
        self.name, self.engine, self.settings = name, engine, settings
        self.costs: dict[str, dict[str, Any]] = {}
        self._done: dict[Job, dict[str, Any]] = {}
        self._principles = principles

    def system(self, message: str) -> str:
        """This arm's system message where a suite uses `message`, which may be empty."""
        if not self._principles:
            return message
        rules = "\n\n".join(judge.rule(principle) for principle in self._principles)
        return PRINCIPLES.format(system=message, rules=rules).strip()

    def complete(self, suite: str, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Completions in the order of the jobs, as the fields of `records.Completion`; see `completions.complete`."""
        if not self._done.keys() >= set(jobs):
            self.complete_together({suite: jobs})
        return [self._done[job] for job in jobs]

    def complete_together(self, jobs: Mapping[str, Sequence[Job]]) -> dict[str, float]:
        """Complete the jobs of several suites in one call, because few rows fill no batch; `complete` then returns
        them.

        Returns:
            The seconds it took, divided among the suites by the tokens generated for each.
        """
        clock = timing.Stopwatch()
        all_jobs = [job for of_suite in jobs.values() for job in of_suite]
        stage = f"eval {', '.join(jobs)} {self.name}"
        done = completions.complete(stage, self.engine, all_jobs, self.settings.generation, self.settings.seed)
        self._done |= zip(all_jobs, done.completions, strict=True)
        tokens: dict[str, int] = {}
        for suite, new in completions.split(done.new, jobs).items():
            generated = list(compress(jobs[suite], new))
            tokens[suite] = sum(self._done[job]["completion_tokens"] for job in generated)
            counts = {"generated": len(generated), "reused": len(new) - len(generated)}
            self._count(suite, done.runtime | counts | {"generated_tokens": tokens[suite]})
        a_token = clock.seconds / (sum(tokens.values()) or 1)
        return {suite: a_token * count for suite, count in tokens.items()}

    def score(self, suite: str, conversations: Sequence[Sequence[Message]], labels: Sequence[str]) -> list[list[float]]:
        """Probability of each label after each conversation; see `completions.score`."""
        scores = completions.score(f"eval {suite} {self.name}", self.engine, conversations, labels)
        self._count(suite, scores.runtime)
        return scores.probabilities

    def _count(self, suite: str, cost: dict[str, Any]) -> None:
        before = [self.costs[suite]] if suite in self.costs else []
        self.costs[suite] = completions.total([*before, cost])


def each(settings: Params, principles: Sequence[Principle], adapter: Path) -> Iterator[Arm]:
    """The arms of `eval.arms`, one set of weights in memory at a time: release an arm before taking the next.

    An adapter changes the model object that it is applied to, so the tuned arm loads its own weights.

    Raises:
        UserError: a model is not available or does not fit.
    """
    names = settings.eval.arms
    labels = dict(zip(names, settings.eval.labels, strict=True))
    in_prompt = {"base": (), "prompted": principles}
    of_base = [name for name in names if name in in_prompt]
    engine = completions.load_engine(settings.models.train, settings.hardware)
    for name in of_base:
        yield Arm(name, engine, settings, in_prompt[name])
    del engine
    for name in names:
        if name in in_prompt:
            continue
        tuned = name == "tuned"
        model = settings.models.train if tuned else name
        yield Arm(labels[name], completions.load_engine(model, settings.hardware, adapter if tuned else None), settings)
