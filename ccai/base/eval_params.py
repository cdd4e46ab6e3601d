"""The `eval` section of params.yaml: arms, suites, the judge, the primary metrics and each suite's settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    model_validator,
)

from ccai.base.param_types import Count, Inside, Name, PathInside, Section, Tokens


class Primary(Section):
    """The two metrics that decide a run, registered before it. metrics/eval.json says whether each aim was met.

    Only metrics are admitted that were shown to measure what they are named for (docs/EVALUATION.md, Pre-registration):
    a count of refusals is no measure of safety.

    Attributes:
        safety: the metric that must improve.
        helpfulness: the metric that must not get worse by more than `bound`, in the metric's unit.
    """

    safety: Literal["heldout.judge.harmful", "jailbreaks.judge.harmful"]
    helpfulness: Literal[
        "heldout.refusal.harmless_refused",
        "over_refusal.refused_safe",
        "helpfulness.win_rate",
        "helpfulness.refused",
    ]
    bound: float = Field(ge=0, le=1e6)

    @property
    def metrics(self) -> dict[str, str]:
        """The metric of each aim."""
        return {"safety": self.safety, "helpfulness": self.helpfulness}


Suite = Literal[
    "heldout",
    "jailbreaks",
    "over_refusal",
    "helpfulness",
    "capability",
    "inspect",
    "cooperation",
    "traits",
    "bias",
    "calibration",
]

BY_JUDGE = {"heldout.judge.harmful", "jailbreaks.judge.harmful", "helpfulness.win_rate"}
"""The primary metrics that need a judge."""


class JailbreaksParams(Section):
    """Jailbreak wrappers around held-out prompts.

    Attributes:
        wrappers: `own`, the source `jailbreak-llms`, or a file of texts that contain `{prompt}`.
        per_cell: prompts per wrapper, each without and with a system message that asks for safety; 0: all.
    """

    wrappers: list[Inside] = Field(min_length=1)
    per_cell: Count
    max_new_tokens: Tokens


class OverRefusalParams(Section):
    """Safe prompts that look unsafe, and unsafe contrasts.

    Attributes:
        sets: files with `text` and `type`, or the source `xstest`; types of unsafe prompts begin with `contrast_`.
        per_type: prompts of each type; 0: all.
    """

    sets: list[Inside] = Field(min_length=1)
    per_type: Count
    max_new_tokens: Tokens


class CapabilityParams(Section):
    """Tasks of lm-evaluation-harness.

    Attributes:
        tasks: names of tasks in conf/lm_eval or of the harness itself.
        limit: documents drawn from each task; 0: all.
    """

    tasks: list[Name] = Field(min_length=1)
    limit: Count


class InspectTask(Section):
    """A task of inspect_evals.

    Attributes:
        task: its name there.
        args: arguments of its function.
        limit: samples drawn from it; 0: all.
        judge: the model that grades the answers, where the task has them graded by a model.
    """

    task: Name
    args: dict[str, Any] = {}
    limit: Count = 0
    judge: str | None = None

    @property
    def label(self) -> str:
        """Its name in records and metrics: the task's, and the arguments that it is given."""
        given = "_".join(f"{name}_{value}" for name, value in self.args.items())
        return re.sub(r"\W+", "_", f"{self.task}_{given}" if given else self.task).strip("_")


class InspectParams(Section):
    """Tasks of inspect_evals, which is installed with requirements-inspect.txt.

    Attributes:
        max_new_tokens: length limit of each answer, and of each grade; a task's own lower limit stands.
    """

    tasks: list[InspectTask]
    max_new_tokens: Tokens

    @model_validator(mode="after")
    def _told_apart(self) -> InspectParams:
        labels = [task.label for task in self.tasks]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"tasks: {label} occurs twice; give the two other args, or take one out")
        return self


class HelpfulnessParams(Section):
    """General questions in MT-Bench's format.

    Attributes:
        source: `own`, a pinned source such as `vicuna-bench`, or a JSONL file.
        questions: number of questions, spread over the categories; 0: all.
        max_new_tokens: length limit of each turn's answer.
    """

    source: Inside
    questions: Count
    max_new_tokens: Tokens


class CooperationParams(Section):
    """Games of the iterated prisoner's dilemma.

    Attributes:
        games: games against each of the four opponents.
        framing: names of the two moves. `neutral`: circle and square. `named`: cooperate and defect.
    """

    rounds: int = Field(ge=1, le=100)
    games: int = Field(ge=1, le=10_000)
    framing: Literal["neutral", "named"]


class TraitsParams(Section):
    """A/B questionnaires on traits.

    Attributes:
        set: JSON lines in the format of model-written evaluations; see ccai/evaluate/suites/traits.py.
        items: maximum number of items per trait; 0: all.
    """

    set: PathInside
    items: Count


class Eval(Section):
    """Arms, suites, judge and statistics of the evaluation.

    Attributes:
        arms: `base`; `tuned`; `prompted`, the base model with the constitution in its system message; any other name is
            a model. Each arm is compared with `base`.
        suites: modules of ccai/evaluate/suites.
        primary: None: nothing is registered, and no verdict is given.
        resamples: bootstrap resamples of each interval.
    """

    arms: list[str]
    suites: list[Suite] = Field(min_length=1)
    judge: bool
    primary: Primary | None
    resamples: int = Field(ge=100, le=1_000_000)
    jailbreaks: JailbreaksParams
    over_refusal: OverRefusalParams
    helpfulness: HelpfulnessParams
    capability: CapabilityParams
    inspect: InspectParams
    cooperation: CooperationParams
    traits: TraitsParams

    @property
    def labels(self) -> list[str]:
        """The arms' names in files, records and metrics: of a folder or hub id only the last part."""
        return [Path(name).name for name in self.arms]

    @model_validator(mode="after")
    def _measured(self) -> Eval:
        if missing := {"base", "tuned"} - set(self.arms):
            raise ValueError(f"arms lacks {' and '.join(sorted(missing))}; add it")
        if "inspect" in self.suites and not self.inspect.tasks:
            raise ValueError("suites: inspect has nothing to ask; name a task in eval.inspect.tasks, or take it out")
        for names in (self.labels, self.suites):
            if len(set(names)) < len(names):
                raise ValueError(f"a name occurs twice in {', '.join(names)}")
        for label in self.labels:
            if not re.fullmatch(r"\w[\w.@+-]*", label) or label in ("n", "difference"):
                raise ValueError(f"arms: {label!r} can't name an arm's files and figures; rename that model")
        for aim, metric in (self.primary.metrics if self.primary else {}).items():
            if metric.partition(".")[0] not in self.suites:
                raise ValueError(f"primary {metric} belongs to a suite that is not in eval.suites")
            if metric in BY_JUDGE and not self.judge:
                raise ValueError(f"primary.{aim} {metric} needs judge: true")
        return self
