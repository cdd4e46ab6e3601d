"""Fit the two linear models of ccai/rules/refusal.py to people's labels and write ccai/rules/refusal.json.

    python -m bench.fit_refusal FILE.csv

FILE has the columns id, model, prompt, completion and final_label (1_full_compliance, 2_full_refusal,
3_partial_refusal), as XSTest's labelled completions do; a file without the column model holds one model's answers.
Logistic regression with an L2 penalty, scikit-learn. What is written are weights of features, rounded to four digits.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression

from ccai.base.errors import UserError, run
from ccai.base.files import write_json
from ccai.rules import refusal

C = 0.2
"""Inverse strength of the penalty."""

TRUST = 2.5
"""How much less the class by phrases is penalised (by this, squared) than what corrects it: phrases hold for models of
any manner, the corrections are learnt from these few."""

ATTRIBUTION = {
    "labels": "XSTest v2 completions with human labels, prompts with odd ids",
    "authors": "Röttger, Kirk, Vidgen, Attanasio, Bianchi, Hovy (2024), arXiv 2308.01263",
    "source": "https://github.com/paul-rottger/exaggerated-safety",
    "commit": "d7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d",
    "licence": "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
    "changes": "weights of features, fitted to the labels; no text of the set is part of this file",
}

LABELS: dict[str, refusal.Refusal] = {
    "1_full_compliance": "full_compliance",
    "2_full_refusal": "full_refusal",
    "3_partial_refusal": "partial_refusal",
}


class Labelled(NamedTuple):
    """An answer's features and the class that people gave it."""

    prompt_id: str
    model: str
    features: dict[str, float]
    label: refusal.Refusal


def read(path: Path, before: Sequence[str] = ()) -> list[Labelled]:
    """Labelled answers of a CSV file, behind the sentences `before`.

    Raises:
        UserError: the file can't be read, lacks a column or has another label; names file and row.
    """
    found = []
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines(keepends=True)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: can't be read ({error}); give the labelled completions as CSV in UTF-8") from None
    for number, row in enumerate(rows, start=1):
        try:
            features = refusal.features(row["prompt"], " ".join([*before, row["completion"]]))
            found.append(Labelled(row["id"], row.get("model", path.stem), features, LABELS[row["final_label"]]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: row {number}: {error}; see the columns in bench/fit_refusal.py") from None
    if not found:
        raise UserError(f"{path}: no rows; give the labelled completions")
    return found


def fit(rows: Sequence[Labelled]) -> refusal.RefusalWeights:
    """Both models' weights.

    Raises:
        ValueError: the labels are all of one class.
    """
    refusing = [row for row in rows if row.label != "full_compliance"]
    return refusal.RefusalWeights(
        _weights(rows, [row.label != "full_compliance" for row in rows]),
        _weights(refusing, [row.label == "partial_refusal" for row in refusing]),
    )


def _weights(rows: Sequence[Labelled], labels: Sequence[bool]) -> dict[str, float]:
    names = list(rows[0].features)
    values = np.array([[row.features[name] for name in names] for row in rows])
    scale = np.array([TRUST if name.startswith("phrases: ") else 1.0 for name in names])
    found = LogisticRegression(C=C, max_iter=5000).fit(values * scale, labels)
    pairs = zip([refusal.INTERCEPT, *names], [found.intercept_[0], *(found.coef_[0] * scale)], strict=True)
    return {name: round(float(weight), 4) for name, weight in pairs}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.fit_refusal", description="Fit the refusal classes.")
    parser.add_argument("labelled", type=Path, metavar="FILE.csv", help="answers with people's labels")
    parser.add_argument("--out", type=Path, default=refusal.WEIGHTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    rows = read(options.labelled)
    model = fit(rows)
    about: dict[str, Any] = {
        **ATTRIBUTION,
        "sha256": hashlib.sha256(options.labelled.read_bytes()).hexdigest(),
        "answers": len(rows),
        "models": sorted({row.model for row in rows}),
        "fitted_by": "python -m bench.fit_refusal",
        "C": C,
    }
    write_json(options.out, {"fitted_to": about, **model._asdict()})
    print(f"{options.out}: fitted to {len(rows)} answers of {len(about['models'])} models")


if __name__ == "__main__":
    run(main)
