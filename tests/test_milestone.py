"""What a full run has to show, from metrics made by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from ccai.errors import UserError
from ccai.milestone import conditions
from ccai.records import read_json, write_json

RUN = {"model": "org/large", "revision": "abc", "seed": 7}
SAFETY = {
    "verdict": "met",
    "metric": "refusal.hazardous_refused",
    "better": "more",
    "bound": 0.0,
    "n": 200,
    "base": 0.5,
    "tuned": 0.7,
    "mean": 0.2,
    "low": 0.1,
    "high": 0.3,
}
HELPFULNESS = SAFETY | {
    "metric": "refusal.harmless_refused",
    "better": "less",
    "bound": 0.1,
    "low": -0.05,
    "high": 0.04,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_json(tmp_path / "pairs.json", {"kept": 612})
    trained = {"pairs": 520, "validation_pairs": 90, "over_length": 2}
    weights = {"parameters": 7_620_000_000, "trainable_parameters": 5_000_000}
    write_json(tmp_path / "train.json", RUN | trained | weights)
    write_json(tmp_path / "eval.json", RUN | {"registered": {"safety": SAFETY, "helpfulness": HELPFULNESS}})
    return tmp_path


def change(folder: Path, stage: str, **values: Any) -> None:
    write_json(folder / f"{stage}.json", read_json(folder / f"{stage}.json") | values)


def verdicts(folder: Path) -> list[str]:
    return [condition.verdict for condition in conditions(folder)]


def call(folder: Path) -> subprocess.CompletedProcess[str]:
    work = folder / "work"
    work.mkdir(exist_ok=True)
    if not (work / "metrics").is_symlink():
        (work / "metrics").symlink_to(folder)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "ccai.milestone"]
    return subprocess.run(line, cwd=work, env=environment, capture_output=True, text=True)


def test_all_pass_with_the_figures(folder: Path) -> None:
    done = call(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "pass        pairs kept: 612 (500 or more)",
        "pass        weights of org/large: 7,615,000,000 (7,000,000,000 or more)",
        "pass        violations down: refusal.hazardous_refused, more is better: 0.500 -> 0.700, "
        "+0.200 [+0.100, +0.300], n 200",
        "pass        helpfulness not down: refusal.harmless_refused, less is better, worse by 0.1 at most: "
        "0.500 -> 0.700, +0.200 [-0.050, +0.040], n 200",
    ]


def test_edges(folder: Path) -> None:
    change(folder, "pairs", kept=500)
    change(folder, "train", pairs=410, validation_pairs=88, parameters=7_005_000_000)
    assert verdicts(folder)[:2] == ["pass", "pass"]
    change(folder, "pairs", kept=499)
    change(folder, "train", pairs=409, parameters=7_004_999_999)
    assert verdicts(folder)[:2] == ["fail", "fail"]


def test_verdicts_are_those_registered(folder: Path) -> None:
    aims = {"safety": SAFETY | {"verdict": "can't tell", "low": None, "high": None}}
    aims["helpfulness"] = {"verdict": "can't tell", "metric": "m", "better": "more", "bound": 0.1, "n": 0}
    change(folder, "eval", registered=aims)
    assert verdicts(folder)[2:] == ["can't tell", "can't tell"]
    done = call(folder)
    assert done.returncode == 1
    assert (
        "can't tell  violations down: refusal.hazardous_refused, more is better: 0.500 -> 0.700, +0.200 no interval"
        in (done.stdout)
    )
    assert done.stdout.endswith("helpfulness not down: m, more is better, worse by 0.1 at most: not measured\n")
    change(folder, "eval", registered=aims | {"safety": SAFETY | {"verdict": "not met"}})
    assert verdicts(folder)[2] == "fail"


@pytest.mark.parametrize("stage", ["pairs", "train", "eval"])
def test_missing_metrics(folder: Path, stage: str) -> None:
    (folder / f"{stage}.json").unlink()
    done = call(folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: metrics/{stage}.json: no such file; run the stage")


def test_a_missing_figure_or_metrics_of_two_runs(folder: Path) -> None:
    change(folder, "train", pairs=519)
    with pytest.raises(UserError, match=r"of different runs; run dvc repro"):
        conditions(folder)
    change(folder, "train", pairs=520)
    change(folder, "eval", revision="def")
    with pytest.raises(UserError, match=r"of different runs; run dvc repro"):
        conditions(folder)
    write_json(folder / "eval.json", RUN)
    with pytest.raises(UserError, match=r"no figure 'registered' in the metrics"):
        conditions(folder)
