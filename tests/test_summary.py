"""The last run on one screen, from metrics made by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from test_baseline import PROMPTS, RESPONSES
from test_evaluation import FAILED, PASSED, arms, by_arm, scored

from ccai import baseline, pairs, summary
from ccai.errors import UserError
from ccai.evaluation import registered
from ccai.params import Primary
from ccai.records import read_json, write_json

TRAINED = {
    "model": "org/tiny",
    "steps": 8,
    "effective_batch": 4,
    "loss_first": 0.6931,
    "loss_last": 0.5,
    "validation": {"reward_accuracy": 0.75, "reward_margin": 0.0123},
    "validation_pairs": 6,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    gates = dict.fromkeys(pairs.GATES, 0) | {"too_short": 2, "meta_talk": 1}
    counts = {"kept": 17, "train": 14, "validation": 3, "dropped": 3, "dropped_by": gates}
    write_json(tmp_path / "prompts.json", {"train": {"total": 24}, "eval": {"total": 10}})
    write_json(tmp_path / "pairs.json", counts)
    write_json(tmp_path / "train.json", TRAINED)
    hazards = ["privacy"] * 5 + ["unspecified"] * 5
    base = [{"hazard": hazard} for hazard in hazards]
    tuned = [
        {"hazard": hazard} | scored(care=0.6 + 0.03 * place, wisdom=0.1 * place, declining=0.75)
        for place, hazard in enumerate(hazards)
    ]
    evaluation: dict[str, Any] = {"model": "org/tiny", "judged_by": "rules", "seed": 7, "prompts": 10}
    measured = arms(base, tuned, judge=PASSED)
    aims = {
        "safety": "heldout.refusal.hazardous_refused",
        "helpfulness": "heldout.refusal.harmless_refused",
        "bound": 0.1,
    }
    evaluation["registered"] = registered({"heldout": measured}, Primary.model_validate(aims))
    write_json(tmp_path / "eval.json", evaluation | {"heldout": measured, "judge": PASSED})
    return tmp_path


def row(folder: Path, label: str) -> str:
    [line] = [line for line in summary.text(folder).splitlines() if line.strip().startswith(f"{label} ")]
    return " ".join(line.split())


def test_counts_and_training(folder: Path) -> None:
    lines = summary.text(folder).splitlines()
    assert lines[3:8] == [
        "prompts   24 to train on, 10 held out",
        "pairs     17 of 20 kept (14 train, 3 validation)",
        "          dropped: too short 2, meta talk 1",
        "trained   org/tiny, 8 steps of 4 pairs, loss 0.693 -> 0.500",
        "          validation: reward accuracy 0.75, margin +0.0123 (6 pairs)",
    ]


def test_registered_stands_at_the_top(folder: Path) -> None:
    first, second, third = summary.text(folder).splitlines()[:3]
    assert first.startswith(
        "safety      CAN'T TELL: heldout.refusal.hazardous_refused, more is better: 0.000 -> 0.000, +0.000 [-0."
    )
    assert first.endswith("], n 5")
    assert second == (
        "helpfulness CAN'T TELL: heldout.refusal.harmless_refused, less is better, worse by 0.1 at most: not measured"
    )
    assert third == ""
    evaluation = read_json(folder / "eval.json")
    del evaluation["registered"]
    write_json(folder / "eval.json", evaluation)
    with pytest.raises(UserError, match=r"eval\.json: no 'registered'; re-run the stage"):
        summary.text(folder)


def test_safety_and_tone_stand_apart(folder: Path) -> None:
    lines = summary.text(folder).splitlines()
    order = [lines.index(f"held-out prompts: {heading}") for heading in summary.SECTIONS]
    assert order == sorted(order)
    families = [line.split(":")[0].strip() for line in lines[order[1] + 1 : order[2]]]
    assert families == ["contemplative"] * 4 + ["humanistic"] * 3


def test_interval_and_a_star_where_it_leaves_out_0(folder: Path) -> None:
    care = row(folder, "contemplative: care")
    assert care.startswith("contemplative: care 0.500 0.735 +0.235 [+0.")
    assert care.endswith("] *")
    wisdom = row(folder, "humanistic: wisdom")
    assert wisdom.startswith("humanistic: wisdom 0.500 0.450 -0.050 [-0.")
    assert wisdom.endswith("]"), "an interval that holds 0 is no finding"


def test_no_star_where_holm_is_not_below_5_percent(folder: Path) -> None:
    """One of ten measures whose interval leaves out 0, with a p that ten of them may have by chance."""
    wavering = [scored(care=value) for value in (0.9, 0.8, 0.4, 0.7, 0.6, 0.9, 0.5, 0.7, 0.3, 0.9)]
    measured = arms([scored(care=0.5)] * 10, wavering)
    gap = measured["contemplative"]["care"]["difference"]["tuned"]
    assert gap["low"] > 0 and gap["p"] < 0.05 <= gap["p_holm"]
    write_json(folder / "eval.json", read_json(folder / "eval.json") | {"heldout": measured})
    assert row(folder, "contemplative: care").endswith("]")


def test_the_tuned_arm_is_shown_whatever_stands_beside_it(folder: Path) -> None:
    evaluation = read_json(folder / "eval.json")
    evaluation["heldout"]["contemplative"] = {"care": by_arm({"prompted": 0.3, "tuned": 0.1})}
    write_json(folder / "eval.json", evaluation)
    care = evaluation["heldout"]["contemplative"]["care"]
    shown = f"{care['base']['mean']:.3f} {care['tuned']['mean']:.3f} {care['difference']['tuned']['mean']:+.3f}"
    assert care["difference"]["tuned"]["mean"] == pytest.approx(0.1, abs=0.02)
    assert row(folder, "contemplative: care").startswith(f"contemplative: care {shown} [")


def test_missing_bounds_and_prompts_are_said(folder: Path) -> None:
    assert row(folder, "safety: declining") == "safety: declining 0.500 0.750 +0.250 too few prompts differ"
    assert row(folder, "refusal: harmless refused") == "refusal: harmless refused no such prompts"
    assert row(folder, "judge: harmful") == "judge: harmful none of 10 could be read"
    assert "None" not in summary.text(folder)
    assert "nan" not in summary.text(folder)


def test_judge_that_passed(folder: Path) -> None:
    assert "\njudge org/judge passed its exam (harm: AUC 0.91 [0.85, 0.96])\n\n" in summary.text(folder)


def test_judge_that_can_not_be_read_or_is_kin(folder: Path) -> None:
    evaluation = read_json(folder / "eval.json")
    counts = {"heldout": {"verdicts": 20, "unreadable": 1}, "jailbreaks": {"verdicts": 40, "unreadable": 1}}
    write_json(folder / "eval.json", evaluation | {"judge": PASSED | {"verdicts": counts, "relatives": ["org/tiny"]}})
    text = summary.text(folder)
    assert "\n  of heldout 1 of 20 verdicts are unreadable: don't use them\n" in text
    assert "of jailbreaks" not in text
    assert "\n  it is of the family it judges: org/tiny\n" in text


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ({}, "harm: AUC 0.52 [0.40, 0.65]"),
        ({"unreadable": 5}, "harm: AUC 0.52 [0.40, 0.65], 5 of 64 unreadable"),
        ({"auc": None, "low": None, "high": None, "unreadable": 64}, "harm: no AUC, 64 of 64 unreadable"),
    ],
)
def test_judge_that_failed_is_said_and_gives_no_number(folder: Path, mark: dict[str, Any], said: str) -> None:
    evaluation = read_json(folder / "eval.json")
    heldout = {name: value for name, value in evaluation["heldout"].items() if name != "judge"}
    write_json(folder / "eval.json", {**evaluation, "heldout": heldout, "judge": FAILED | mark})
    write_json(folder / "pairs.json", read_json(folder / "pairs.json") | {"judge": FAILED | mark})
    text = summary.text(folder)
    assert f"\njudge org/judge FAILED its exam ({said}), its verdicts are invalid and left out\n" in text
    assert f"          judge org/judge FAILED its exam ({said}), its gates are off\n" in text
    assert "judge: harmful" not in text


def test_first_answers_that_need_correction(folder: Path) -> None:
    prompts = [PROMPTS[0], PROMPTS[1], PROMPTS[3]]
    verdicts = {("a", "care"): 0.9, ("b", "care"): 0.2, ("a", "candour"): None}
    for violations, said in (
        (None, []),
        (verdicts, ["first answers that violate a principle (judge): candour no readable verdict, care 50% [1%, 99%]"]),
    ):
        measured = baseline.measure(prompts, RESPONSES, violations)
        counts = read_json(folder / "pairs.json") | {"judge": PASSED, "baseline": measured}
        write_json(folder / "pairs.json", counts)
        lines = [line.strip() for line in summary.text(folder).splitlines()]
        at = lines.index("first answers: 50% [1%, 99%] of hazardous prompts complied with (rules)")
        assert lines[at + 1 : at + 1 + len(said)] == said
        assert lines[at + 1 + len(said)].endswith("passed its exam (harm: AUC 0.91 [0.85, 0.96]), its gates are on")
    nothing = baseline.measure(prompts[2:], RESPONSES, None)
    write_json(folder / "pairs.json", read_json(folder / "pairs.json") | {"baseline": nothing})
    assert "first answers: no hazardous prompt\n" in summary.text(folder)


def test_nothing_dropped_says_nothing_of_it(folder: Path) -> None:
    counts = {"kept": 20, "train": 17, "validation": 3, "dropped": 0, "dropped_by": dict.fromkeys(pairs.GATES, 0)}
    write_json(folder / "pairs.json", counts)
    assert "dropped" not in summary.text(folder)


@pytest.mark.parametrize("name", ["prompts", "pairs", "train", "eval"])
def test_metrics_that_are_not_there_yet(folder: Path, name: str) -> None:
    (folder / f"{name}.json").unlink()
    with pytest.raises(UserError, match=rf"{name}\.json: no such file; run the stage that writes it"):
        summary.text(folder)


def test_command(folder: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "metrics").symlink_to(folder)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "ccai.summary"], cwd=work, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, summary.text(folder) + "\n")
