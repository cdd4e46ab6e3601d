"""What every suite can do: ask an arm, let a judge read the answers, measure all arms against the base."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic

from ccai.base.params import Params
from ccai.base.records import AnyRecord
from ccai.engines.base import Engine
from ccai.evaluate.arms import Arm
from ccai.evaluate.comparison import Comparison
from ccai.generate.completions import Job

Answers = Mapping[str, Sequence[AnyRecord]]
"""Records by arm: all arms' in the same order, item by item."""


class Suite(ABC, Generic[AnyRecord]):
    """A suite is made from the params before anything is generated, so that what it lacks is said at once.

    Attributes:
        name: in params (`eval.suites`), in metrics/eval.json, and of its folder in data/eval.
        record: what a line of its files is.
        question: what a judge has to have passed in its exam to read the suite's answers; None: no judge reads them.
    """

    name: ClassVar[str]
    record: ClassVar[type[Any]]
    question: ClassVar[str | None] = None

    @abstractmethod
    def __init__(self, settings: Params) -> None:
        """Read what is asked. Raises UserError if it isn't there."""

    def jobs(self, arm: Arm) -> list[Job]:
        """What `ask` wants completed whatever the answers; an arm completes that of all suites together."""
        return []

    @abstractmethod
    def ask(self, arm: Arm) -> list[AnyRecord]:
        """The arm's answers. Items come in one order whatever the arm."""

    def judge(self, engine: Engine, answers: Answers[AnyRecord]) -> tuple[dict[str, list[AnyRecord]], dict[str, Any]]:
        """The answers with a judge's verdicts, and what they cost; called only for a suite with a `question`."""
        raise NotImplementedError

    @classmethod
    @abstractmethod
    def measure(cls, answers: Answers[AnyRecord], comparison: Comparison, *, judged: bool) -> dict[str, Any]:
        """Metrics: nested names down to what `Comparison.measure` gives; below a name that begins with `by_` stands a
        breakdown. `judged`: a judge that passed has read the answers."""
