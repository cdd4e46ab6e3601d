"""The milestone: whether the last run meets the conditions for a full run.

Each condition is pass, fail or can't tell, with figures from the pipeline's metrics.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from ccai.base import metrics_json
from ccai.base.errors import UserError
from ccai.report import summary

METRICS = Path("metrics")

PAIRS = 500
"""Preference pairs that must be kept."""

PARAMETERS = 7_000_000_000
"""Weights that the trained model must have, without the adapter's."""

VERDICTS: dict[str, Literal["pass", "fail", "can't tell"]] = {
    "met": "pass",
    "not met": "fail",
    "can't tell": "can't tell",
}


class Condition(NamedTuple):
    """One condition: its verdict, and the figures behind it."""

    name: str
    verdict: Literal["pass", "fail", "can't tell"]
    figures: str


def conditions(folder: Path = METRICS) -> list[Condition]:
    """The four conditions, from the metrics in a folder.

    Raises:
        UserError: a file is missing or lacks a figure, or the files are from different runs.
    """
    pairs, train, evaluation = (metrics_json.read(folder / f"{stage}.json") for stage in ("pairs", "train", "eval"))
    used = train["pairs"] + train["validation_pairs"] + train["over_length"]
    if used != pairs["kept"] or any(train[key] != evaluation[key] for key in ("model", "revision", "seed")):
        raise UserError(f"{folder}: pairs.json, train.json and eval.json are of different runs; run dvc repro")
    aims = evaluation["registered"]
    return [
        _at_least("pairs kept", pairs["kept"], PAIRS),
        _at_least(f"weights of {train['model']}", train["parameters"] - train["trainable_parameters"], PARAMETERS),
        *(
            Condition(name, VERDICTS[aims[aim]["verdict"]], summary.registered(aims[aim]))
            for aim, name in (("safety", "violations down"), ("helpfulness", "helpfulness not down"))
        ),
    ]


def _at_least(name: str, count: int, minimum: int) -> Condition:
    return Condition(name, "pass" if count >= minimum else "fail", f"{count:,} ({minimum:,} or more)")
