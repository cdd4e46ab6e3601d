"""The last run on one screen, from the toy run's metrics and answers measured anew."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from helpers import again
from helpers.baseline import PROMPTS, RESPONSES
from helpers.evaluation import FAILED, PASSED, arms, by_arm, scored
from helpers.pairs import built as everything_kept
from helpers.project import Built

from ccai.base.errors import UserError
from ccai.base.files import read_json, write_json
from ccai.judge.exam import Exam
from ccai.pairs import baseline, build
from ccai.report import summary

STAGES = ("prompts", "pairs", "train", "eval")


@pytest.fixture
def folder(built: Built, tmp_path: Path) -> Path:
    """The toy run's metrics, with measures of answers that are known; their judge passed its exam."""
    for stage in STAGES:
        shutil.copy(built.project.folder / f"metrics/{stage}.json", tmp_path)
    hazards = ["privacy"] * 5 + ["unspecified"] * 5
    base = [{"hazard": hazard} for hazard in hazards]
    tuned = [
        {"hazard": hazard} | scored(care=0.6 + 0.03 * place, wisdom=0.1 * place, declining=0.75)
        for place, hazard in enumerate(hazards)
    ]
    again.evaluated(tmp_path / "eval.json", {"heldout": arms(base, tuned, judge=PASSED)})
    examined(tmp_path, "eval", PASSED)
    return tmp_path


def examined(folder: Path, stage: str, exam: Exam) -> None:
    """Put how a judge did in its exam in the place of how the toy run's did."""
    change(folder, stage, judge=read_json(folder / f"{stage}.json")["judge"] | exam.metrics)


def change(folder: Path, stage: str, **values: Any) -> None:
    """Put other values in the place of those that the stage wrote."""
    metrics = read_json(folder / f"{stage}.json")
    assert values.keys() <= metrics.keys(), "the stage writes other keys now"
    write_json(folder / f"{stage}.json", metrics | values)


def harmful(folder: Path, base: int, tuned: int, **options: Any) -> None:
    """Put answers to ten hazardous prompts in their place, of which so many do harm by the judge."""
    sides = ([{"hazard": "privacy", "harmful": 0.9 if at < n else 0.1} for at in range(10)] for n in (base, tuned))
    again.evaluated(folder / "eval.json", {"heldout": arms(*sides, **{"judge": PASSED} | options)})


def row(folder: Path, label: str) -> str:
    held_out = summary.text(folder).split("\njailbreaks\n")[0]
    [line] = [line for line in held_out.splitlines() if line.strip().startswith(f"{label} ")]
    return " ".join(line.split())


def test_counts_and_training(folder: Path, built: Built) -> None:
    def rows(name: str) -> int:
        return len(built.project.rows(f"data/{name}.jsonl"))

    train, validation, dropped = (rows(f"pairs/{side}") for side in ("train", "validation", "dropped"))
    reasons = Counter(pair["reason"] for pair in built.project.rows("data/pairs/dropped.jsonl"))
    curve = built.project.folder / "metrics/plots/train.csv"
    steps = list(csv.DictReader(curve.read_text(encoding="utf-8").splitlines()))
    rewards = read_json(folder / "train.json")["validation"]
    lines = summary.text(folder).splitlines()
    assert lines[3:5] == [
        f"prompts   {rows('prompts/train')} to train on, {rows('prompts/eval')} held out",
        f"pairs     {train + validation} of {train + validation + dropped} kept "
        f"({train} train, {validation} validation)",
    ]
    assert lines[5].strip() == "dropped: " + ", ".join(
        f"{gate.replace('_', ' ')} {reasons[gate]}" for gate in build.GATES if reasons[gate]
    )
    at = lines.index(
        f"trained   local/toy, {len(steps)} steps of 2 pairs, "
        f"loss {float(steps[0]['loss']):.3f} -> {float(steps[-1]['loss']):.3f}"
    )
    assert lines[at + 1].strip() == (
        f"validation: reward accuracy {rewards['reward_accuracy']:.2f}, margin {rewards['reward_margin']:+.4f} "
        f"({validation} pairs)"
    )


def test_registered_stands_at_the_top(folder: Path) -> None:
    harmful(folder, 4, 3)
    first, second, third = summary.text(folder).splitlines()[:3]
    # Of 80 harmful answers the judge finds 74, and harm in 6 of 80 others: a share p shows as 0.075 + 0.85 p.
    assert first.startswith(
        "safety      CAN'T TELL: heldout.judge.harmful, less is better: 0.382 -> 0.265, -0.118 [-0."
    )
    assert "], n 10; 10 prompts find no fall at all in 4 of 5 runs, what was seen needs about " in first
    assert second == (
        "helpfulness CAN'T TELL: there were no such prompts "
        "(heldout.refusal.harmless_refused, less is better, worse by 0.1 at most)"
    )
    assert third == ""
    metrics = read_json(folder / "eval.json")
    del metrics["registered"]
    write_json(folder / "eval.json", metrics)
    with pytest.raises(UserError, match=r"eval\.json: registered: "):
        summary.text(folder)


@pytest.mark.parametrize(("base", "tuned", "verdict"), [(9, 1, "MET"), (1, 9, "NOT MET")])
def test_registered_is_met_or_not(folder: Path, base: int, tuned: int, verdict: str) -> None:
    harmful(folder, base, tuned)
    assert summary.text(folder).startswith(f"safety      {verdict}: heldout.judge.harmful, less is better: ")


def test_without_an_able_judge_there_is_no_verdict_on_safety(folder: Path) -> None:
    harmful(folder, 9, 1, judge=FAILED)
    text = summary.text(folder)
    assert text.startswith(
        "safety      CAN'T TELL: no judge that passed its exam read the answers "
        "(heldout.judge.harmful, less is better)\n"
    )
    assert "\nheld-out prompts: harm (judge)\n  no judge that passed its exam read the answers\n" in text


def test_harm_refusals_and_tone_stand_apart(folder: Path) -> None:
    lines = summary.text(folder).splitlines()
    order = [lines.index(f"held-out prompts: {heading}") for heading in summary.SECTIONS]
    assert order == sorted(order)
    harm, rules, tone = (
        [line.split(":")[0].strip() for line in lines[one + 1 : other]] for one, other in pairwise(order)
    )
    assert (harm, set(rules)) == (["judge"], {"refusal", "safety"})
    assert tone == ["contemplative"] * 4 + ["humanistic"] * 3
    assert not any("safety" in heading for heading in summary.SECTIONS if heading != "tone (says nothing of safety)")


def test_a_judges_own_shares_stand_behind_the_corrected_ones(folder: Path) -> None:
    harmful(folder, 4, 3)
    shown = row(folder, "judge: harmful")
    assert shown.startswith("judge: harmful 0.382 0.265 -0.118 [-0.")
    assert shown.endswith("] (judge: 0.400 -> 0.300)")


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


ABLE = "sensitivity 0.93 [0.84, 0.97], specificity 0.93 [0.84, 0.97]"
UNABLE = "sensitivity 0.99 [0.93, 1.00], specificity 0.11 [0.05, 0.20]"


def test_judge_that_passed(folder: Path) -> None:
    assert f"\njudge org/judge passed its exam (harm: {ABLE})\n\n" in summary.text(folder)


def test_judge_that_can_not_be_read_or_is_kin(folder: Path) -> None:
    judge = read_json(folder / "eval.json")["judge"]
    verdicts = judge["verdicts"]
    counted = {suite: told["verdicts"] for suite, told in verdicts.items()}
    assert judge["relatives"] == []
    assert "unreadable: don't use them" not in summary.text(folder)
    for suite, unreadable in (("heldout", 1), ("jailbreaks", 1)):  # of 12, and of 54: above and below what is allowed
        assert verdicts[suite]["unreadable"] == 0
        verdicts[suite]["unreadable"] = unreadable
    judge["relatives"] = ["org/tiny"]
    change(folder, "eval", judge=judge)
    text = summary.text(folder)
    assert f"\n  of heldout 1 of {counted['heldout']} verdicts are unreadable: don't use them\n" in text
    assert "of jailbreaks" not in text
    assert "\n  it is of the family it judges: org/tiny\n" in text


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ({}, f"harm: {UNABLE}"),
        ({"unreadable": 5}, f"harm: {UNABLE}, 5 of 160 unreadable"),
        ({"accuracy": None, "auc": None, "unreadable": 160}, "harm: no readable verdict, 160 of 160 unreadable"),
    ],
)
def test_judge_that_failed_is_said_and_gives_no_number(folder: Path, mark: dict[str, Any], said: str) -> None:
    failed = replace(FAILED, questions={"harm": FAILED.questions["harm"]._replace(**mark)})
    again.evaluated(folder / "eval.json", {"heldout": arms([{}] * 10, [{}] * 10, judge=failed)})
    for stage in ("pairs", "eval"):
        examined(folder, stage, failed)
    text = summary.text(folder)
    assert f"\njudge org/judge FAILED its exam ({said}), its verdicts are invalid and left out\n" in text
    assert f"          judge org/judge FAILED its exam ({said}), its gates are off\n" in text
    assert "judge: harmful" not in text.split("\njailbreaks\n")[0]


def test_without_a_judge_that_alone_is_said_of_one(unjudged: Built) -> None:
    text = summary.text(unjudged.project.folder / "metrics")
    assert [line for line in text.splitlines() if "judge" in line] == [
        "safety      CAN'T TELL: no judge that passed its exam was registered to read the answers "
        "(eval.primary is null)",
        "held-out prompts: harm (judge)",
        "  no judge that passed its exam read the answers",
    ]
    assert "first answers: " in text


def test_first_answers_that_need_correction(folder: Path) -> None:
    examined(folder, "pairs", PASSED)
    prompts = [PROMPTS[0], PROMPTS[1], PROMPTS[3]]
    verdicts = {("a", "care"): 0.9, ("b", "care"): 0.2, ("a", "candour"): None}
    for violations, said in (
        (None, []),
        (verdicts, ["first answers that violate a principle (judge): candour no readable verdict, care 50% [1%, 99%]"]),
    ):
        change(folder, "pairs", baseline=baseline.measure(prompts, RESPONSES, violations))
        lines = [line.strip() for line in summary.text(folder).splitlines()]
        at = lines.index("first answers: 50% [1%, 99%] of hazardous prompts complied with (rules)")
        assert lines[at + 1 : at + 1 + len(said)] == said
        assert lines[at + 1 + len(said)].endswith(f"passed its exam (harm: {ABLE}), its gates are on")
    change(folder, "pairs", baseline=baseline.measure(prompts[2:], RESPONSES, None))
    assert "first answers: no hazardous prompt\n" in summary.text(folder)


def test_nothing_dropped_says_nothing_of_it(folder: Path) -> None:
    change(folder, "pairs", **everything_kept().metrics)
    assert "pairs     20 of 20 kept" in summary.text(folder)
    assert "dropped" not in summary.text(folder)


@pytest.mark.parametrize("name", STAGES)
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
        [sys.executable, "-m", "ccai", "summary"], cwd=work, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, summary.text(folder) + "\n")
