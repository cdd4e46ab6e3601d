"""Training curves, step by step: for the report, and as a page of one run or of several laid over each other.

Revisions are commits, branches, tags or experiments. The page, dvc_plots/index.html, loads nothing from elsewhere.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ccai.base.errors import UserError
from ccai.report import charts, html, run_files
from ccai.report.charts import Line
from ccai.report.run_files import Read

STEPS = "metrics/plots/train.csv"
FIGURES = {
    "metrics/plots/differences.png": "Tuned minus base, all shares and scores",
    "metrics/plots/refusals.png": "Held-out prompts refused",
}
FOLDER = Path("dvc_plots")

COLUMNS = {
    "loss": "Loss on the training pairs",
    "rewards/accuracies": "Reward accuracy on the training pairs",
    "rewards/margins": "Reward margin on the training pairs",
    "rewards/chosen": "Reward of chosen answers",
    "learning_rate": "Learning rate",
}
"""Columns of metrics/plots/train.csv that are drawn, with their titles."""

COLOURS = (2, 1, 3, 4, 5, 0)
"""Indices into `charts.ARMS`, in the order in which runs take them."""


class Training(NamedTuple):
    """A run's training: its steps by phase, and metrics/train.json; both empty if nothing was trained."""

    name: str
    colour: int
    steps: dict[str, list[dict[str, float]]]
    metrics: dict[str, Any]


def read(name: str, colour: int, files: Read) -> Training:
    """The training of a run, from its files.

    Raises:
        UserError: the files are not in training's format; names the file and the line.
    """
    metrics = run_files.metrics_of(name, files, "train") or {}
    steps: dict[str, list[dict[str, float]]] = {}
    rows = csv.DictReader((files(STEPS) or "").splitlines(), strict=True)
    try:
        for row in rows:
            values = {column: float(row[column]) for column in ("step", *COLUMNS) if row.get(column)}
            if not math.isfinite(values["step"]):
                raise ValueError("step is no number")
            steps.setdefault(row.get("phase") or "", []).append(values)
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)[:200]
        raise UserError(f"{name}: {STEPS}:{rows.line_num}: {what}; run the stage that writes it") from None
    return Training(name, colour, steps, metrics)


def values(trainings: Sequence[Training]) -> dict[str, Any]:
    """A page's values: curves by phase, figures of the validation pairs before and after, and warnings."""
    phases = dict.fromkeys(phase for one in trainings for phase in one.steps)
    return {
        "phases": [(phase, plots) for phase in phases if (plots := _plots(phase, trainings))],
        "validation": _validation(trainings),
        "warnings": [(one.name, str(line)) for one in trainings for line in _listed(one.metrics.get("warnings"))],
    }


def _plots(phase: str, trainings: Sequence[Training]) -> list[tuple[str, Any]]:
    plots = []
    for column, title in COLUMNS.items():
        lines = []
        for one in trainings:
            points = [
                (row["step"], row[column])
                for row in one.steps.get(phase, [])
                if math.isfinite(row.get(column, math.nan))
            ]
            if points:
                lines.append(Line(one.colour, points))
        if lines:
            names = ", ".join(one.name for one in trainings)
            plots.append((title, charts.curves(lines, f"{phase}: {title}, by step: {names}")))
    return plots


def _validation(trainings: Sequence[Training]) -> list[tuple[str, list[tuple[float | None, float | None]]]]:
    """Each figure of the validation pairs, before and after each training; None where it was not measured."""
    sides = [
        (_numbers(one.metrics.get("validation_before")), _numbers(one.metrics.get("validation"))) for one in trainings
    ]
    names = dict.fromkeys(name for before, after in sides for name in (*after, *before))
    return [(name, [(before.get(name), after.get(name)) for before, after in sides]) for name in names]


def _numbers(value: object) -> dict[str, float]:
    values = value if isinstance(value, dict) else {}
    return {str(name): float(number) for name, number in values.items() if isinstance(number, int | float)}


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def comparison(revisions: Sequence[str | None]) -> str:
    """The page of some revisions; None is the run in this folder.

    Raises:
        UserError: no such revision, or none of them has a training.
    """
    trainings, figures = [], []
    for place, revision in enumerate(revisions):
        name, _, files = run_files.files(revision)
        trainings.append(read(name, COLOURS[place % len(COLOURS)], files.text))
        drawn = [(title, files.content(path)) for path, title in FIGURES.items()]
        shown = [(title, html.png(content)) for title, content in drawn if content is not None]
        figures.append((name, shown))
    if not any(one.steps for one in trainings):
        names = ", ".join(one.name for one in trainings)
        raise UserError(f"{names}: no {STEPS}; run the stage that writes it (dvc repro)")
    series = [{"name": one.name, "colour": one.colour} for one in trainings]
    return html.render(
        "curves.html.j2", title="Training, step by step", series=series, training=values(trainings), figures=figures
    )
