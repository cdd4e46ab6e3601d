"""Schemas of metrics/*.json. Files are checked as they are read, so no reader meets a missing figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ccai.base.errors import UserError, first
from ccai.base.files import read_json


class Figures(BaseModel):
    """Named figures. Unknown keys are allowed; nothing reads them by name."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class IntervalFigures(Figures):
    mean: float
    low: float | None
    high: float | None


class Gap(IntervalFigures):
    """A difference from the base arm; `p_holm` is None where it was not tested."""

    p_holm: float | None


class MeasureFigures(Figures):
    """A metric's figures for all arms and their differences from the base; only n where n is 0."""

    n: int = Field(ge=0)
    base: IntervalFigures | None = None
    tuned: IntervalFigures | None = None
    difference: dict[str, Gap] = {}

    @model_validator(mode="after")
    def _whole(self) -> MeasureFigures:
        if self.n and (self.base is None or self.tuned is None or "tuned" not in self.difference):
            raise ValueError("lacks base, tuned or their difference")
        return self


class Registered(Figures):
    """The verdict on a metric registered before the run, and why; figures are present only where n is not 0.

    `metric` and `better` are None where nothing was registered. `smallest` and `needed` are of shares alone: the fall
    that n prompts find with 80 %, and how many prompts would find what was seen.
    """

    verdict: Literal["met", "not met", "can't tell"]
    why: str
    metric: str | None
    better: Literal["more", "less"] | None
    bound: float
    n: int = Field(ge=0)
    base: float | None = None
    tuned: float | None = None
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    smallest: float | None = None
    needed: int | None = None

    @model_validator(mode="after")
    def _whole(self) -> Registered:
        if (self.n and None in (self.base, self.tuned, self.mean)) or (self.low is None) != (self.high is None):
            raise ValueError("lacks a figure")
        return self


class Aims(Figures):
    safety: Registered
    helpfulness: Registered


class Share(Figures):
    """A share with its interval; present only where n is not 0."""

    n: int = Field(ge=0)
    share: float | None = None
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _whole(self) -> Share:
        if self.n and None in (self.share, self.low, self.high):
            raise ValueError("lacks the share or its interval")
        return self


class Complied(Figures):
    all: Share


class Violated(Figures):
    by_principle: dict[str, Share]


class Baseline(Figures):
    complied: Complied
    violated: Violated | None = None


class VerdictCounts(Figures):
    verdicts: int
    unreadable: int


class AccuracyFigures(Figures):
    true_positives: int
    positives: int
    true_negatives: int
    negatives: int


class ExamFigures(Figures):
    """A judge's result in its exam, and counts of the verdicts it gave in this stage."""

    model: str
    revision: str
    passed: bool
    weakest: str
    accuracy: AccuracyFigures | None
    sensitivity: IntervalFigures | None = None
    specificity: IntervalFigures | None = None
    n: int
    unreadable: int
    relatives: list[str]
    verdicts: dict[str, VerdictCounts] = {}


class Side(Figures):
    total: int


class PromptsMetrics(Figures):
    train: Side
    eval: Side


class GenerationMetrics(Figures):
    """Metrics of every stage that generates with a model."""

    model: str
    revision: str
    seed: int


class PairsMetrics(Figures):
    kept: int
    dropped: int
    train: int
    validation: int
    dropped_by: dict[str, int]
    kept_by_source: dict[str, int]
    baseline: Baseline | None = None
    judge: ExamFigures | None = None


class Validation(Figures):
    reward_accuracy: float
    reward_margin: float


class TrainMetrics(GenerationMetrics):
    pairs: int
    validation_pairs: int
    over_length: int
    steps: int
    effective_batch: int
    loss_first: float
    loss_last: float
    parameters: int
    trainable_parameters: int
    validation: Validation


class EvalMetrics(GenerationMetrics):
    """Besides these fields, one mapping per suite whose leaves are measures and other figures."""

    adapter: str
    judged_by: str
    arms: list[str]
    registered: Aims
    judge: ExamFigures | None = None


KINDS: dict[str, type[Figures]] = {
    "prompts": PromptsMetrics,
    "responses": GenerationMetrics,
    "critiques": GenerationMetrics,
    "revisions": GenerationMetrics,
    "pairs": PairsMetrics,
    "train": TrainMetrics,
    "eval": EvalMetrics,
}
"""Schema of each stage's metrics."""


def read(path: Path) -> dict[str, Any]:
    """metrics/STAGE.json, checked.

    Raises:
        UserError: missing, not a JSON object, or without a required figure; names it.
    """
    return check(path.stem, read_json(path), path)


def check(stage: str, value: dict[str, Any], where: str | Path) -> dict[str, Any]:
    """A stage's metrics, checked against their schema.

    Raises:
        UserError: a figure is missing or wrong; names the first.
    """
    try:
        KINDS[stage].model_validate(value)
        if stage == "eval":
            for name, suite in value.items():
                if isinstance(suite, dict) and name not in EvalMetrics.model_fields:
                    _check_measures(suite, name)
    except ValidationError as error:
        raise UserError(f"{where}: {first(error)}; re-run the stage that writes it (dvc repro)") from None
    return value


def _check_measures(nested: dict[str, Any], path: str) -> None:
    for name, value in nested.items():
        if isinstance(value, dict):
            if "n" in value and not isinstance(value["n"], dict):  # a label may also be `n`
                try:
                    MeasureFigures.model_validate(value)
                except ValidationError as error:
                    raise UserError(
                        f"metrics/eval.json: {path}.{name}.{first(error)}; re-run the stage that writes it (dvc repro)"
                    ) from None
            else:
                _check_measures(value, f"{path}.{name}")
