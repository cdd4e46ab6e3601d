"""The interface of a suite: it prompts an arm, has a judge read the answers, and measures all arms against the base."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Generic

from ccai.base.params import Params
from ccai.base.records import AnyRecord
from ccai.engines.base import Engine
from ccai.evaluate.arms import Arm
from ccai.evaluate.comparison import Comparison
from ccai.generate.completions import Job

Answers = Mapping[str, Sequence[AnyRecord]]
"""Records by arm, in the same order for every arm, item by item."""


class Suite(ABC, Generic[AnyRecord]):
    """A suite. It is created from the params before anything is generated, so that errors come first.

    Attributes:
        name: in params (`eval.suites`), in metrics/eval.json, and of its folder in data/eval.
        record: type of the lines in its files.
        question: the exam question that a judge must pass to read the suite's answers; None: no judge reads them.
    """

    name: ClassVar[str]
    record: ClassVar[type[Any]]
    question: ClassVar[str | None] = None

    @abstractmethod
    def __init__(self, settings: Params) -> None:
        """Read the suite's items. Raises UserError if they are missing."""

    def count(self, measure: str) -> int | None:
        """Independent items of a measure, known before anything is asked; None where they are not."""
        return None

    def jobs(self, arm: Arm) -> list[Job]:
        """Requests of `ask` that do not depend on earlier answers; an arm completes those of all suites together."""
        return []

    @abstractmethod
    def ask(self, arm: Arm) -> list[AnyRecord]:
        """The arm's answers. Items have the same order for every arm."""

    def grade(self, answers: Answers[AnyRecord]) -> tuple[dict[str, list[AnyRecord]], dict[str, Any]]:
        """The answers, graded by models that the suite names itself, and the costs, empty if there are none.

        It is called once no arm's weights are in memory.
        """
        return {arm: list(of_arm) for arm, of_arm in answers.items()}, {}

    def notes(self) -> dict[str, dict[str, Any]]:
        """What metrics/eval.json says besides the measures, by the name of a part of the suite."""
        return {}

    def judge(
        self, engine: Engine, answers: Answers[AnyRecord], cut: float
    ) -> tuple[dict[str, list[AnyRecord]], dict[str, Any]]:
        """The answers with a judge's verdicts, and the costs; called only for a suite with a `question`.

        `cut` is the judge's own in that question (`ccai.judge.judge.centred`).
        """
        raise NotImplementedError

    @classmethod
    @abstractmethod
    def key(cls, record: AnyRecord) -> Hashable:
        """Tells a record from the arm's others; the same for the same item in another run."""

    @classmethod
    @abstractmethod
    def measure(cls, answers: Answers[AnyRecord], comparison: Comparison, *, judged: bool) -> dict[str, Any]:
        """Metrics: nested names down to what `Comparison.measure` gives; below a name that begins with `by_` stands a
        breakdown. `judged`: a judge that passed has read the answers."""
