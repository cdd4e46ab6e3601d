"""What a comparison can find, against simulation and against the interval that gives the verdict."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from ccai.base.errors import UserError
from ccai.base.eval_params import Primary
from ccai.cli import plan
from ccai.evaluate import registration
from ccai.stats.intervals import paired_difference
from ccai.stats.power import chance, prompts_needed, smallest_change, unchanged_bound


@pytest.mark.parametrize(("n", "base", "tuned"), [(24, 0.5, 0.1), (40, 0.1, 0.4), (60, 0.3, 0.3)])
def test_chance_is_that_of_simulated_studies(n: int, base: float, tuned: float) -> None:
    rng, found = np.random.default_rng(3), 0
    for _ in range(600):
        arms = [(rng.random(n) < share).astype(float).tolist() for share in (base, tuned)]
        interval = paired_difference(arms[0], arms[1], 0, 1, yes_no=True).difference
        found += interval.low > 0 if tuned > base else interval.high < 0
    assert chance(n, base, tuned) == pytest.approx(found / 600, abs=0.06)


def test_more_prompts_find_less() -> None:
    falls = [smallest_change(n, 0.5) for n in (24, 60, 140, 478)]
    assert None not in falls
    assert falls == sorted(set(falls), reverse=True)  # type: ignore[type-var]
    assert smallest_change(10, 0.1) is None
    assert chance(50, 0.0, 0.0) == 0


def test_prompts_needed_are_the_fewest_to_a_digit() -> None:
    needed = prompts_needed(0.3, 0.15)
    assert needed is not None
    assert chance(needed, 0.3, 0.15) >= 0.8 > chance(needed - 10, 0.3, 0.15)
    assert prompts_needed(0.3, 0.3) is None
    assert prompts_needed(0.002, 0.001) is None


def test_bound_of_no_change_is_the_intervals() -> None:
    for n in (10, 26):
        assert unchanged_bound(n) == pytest.approx(
            paired_difference([0.0] * n, [0.0] * n, 0, 1, yes_no=True).difference.high
        )
    assert unchanged_bound(26) < 0.1 < unchanged_bound(25)


@pytest.mark.parametrize("wrong", [(0, 0.1, 0.2), (5, -0.1, 0.2), (5, 0.1, 1.2)])
def test_nonsense_is_refused(wrong: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match="are needed"):
        chance(*wrong)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copytree(ROOT / "data/eval_sets", tmp_path / "data/eval_sets")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def set_prompts(project: Path, n: int) -> None:
    path = project / "params.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("  eval: 24 ", f"  eval: {n} "), encoding="utf-8")


def test_plan_says_what_the_demo_can_find(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan.main(argparse.Namespace(power=True))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "24 held-out prompts (prompts.eval)"
    assert [line.split()[:2] for line in lines[3:5]] == [["0.05", "none"], ["0.1", "none"]]


def test_plan_counts_prompts_where_all_are_taken(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_prompts(project, 0)
    with pytest.raises(UserError, match="prompts first"):
        plan.main(argparse.Namespace(power=True))
    plan.PROMPTS.parent.mkdir(parents=True)
    shutil.copy(ROOT / "data/eval_sets/over_refusal.jsonl", plan.PROMPTS)
    plan.main(argparse.Namespace(power=True))
    assert capsys.readouterr().out.startswith("90 held-out prompts")


def test_a_bound_that_cannot_be_met_is_said_before_the_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = project / "params.yaml"
    primary = "primary: {safety: heldout.judge.harmful, helpfulness: over_refusal.refused_safe, bound: 0.1}  #"
    text = path.read_text(encoding="utf-8").replace("  primary:              #", f"  {primary}")
    text = text.replace("  judge: false          # ask models.judge whether", "  judge: true  # ask")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"eval.primary.bound: 0.1 can't be met: the 10 prompts .*give it 26 prompts"):
        plan.main(argparse.Namespace(power=True))
    path.write_text(text.replace("per_type: 1 ", "per_type: 0 "), encoding="utf-8")
    plan.main(argparse.Namespace(power=True))
    assert "over_refusal.refused_safe, bound 0.1 on 50 prompts" in capsys.readouterr().out


def test_a_bound_of_nothing_asks_for_a_gain(project: Path) -> None:
    """Nothing is said of it: a model that refuses less can meet it."""
    primary = Primary(safety="heldout.judge.harmful", helpfulness="over_refusal.refused_safe", bound=0)
    registration.check(primary, [])
