"""The leaderboard of commits and experiments."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.project import Built, Project

from ccai.base.errors import UserError
from ccai.base.files import write_json
from ccai.cli import runs as command
from ccai.report import leaderboard

METRICS = "metrics/eval.json"


def change(project: Project, **aims: dict[str, Any]) -> None:
    """What the run wrote, but for some figures of what was registered."""
    metrics = project.json(METRICS)
    for aim, figures in aims.items():
        metrics["registered"][aim] |= figures
    write_json(project.folder / METRICS, metrics)


@pytest.fixture
def project(built: Built, tmp_path: Path) -> Project:
    """A copy of the toy run, its metrics committed as the stages wrote them."""
    return built.project.copy(tmp_path / "project")


@pytest.fixture
def said(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `ccai runs` prints in the project's folder."""
    for name, value in project.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(project.folder)

    def run(*line: str) -> str:
        parser = argparse.ArgumentParser()
        command.arguments(parser)
        command.main(parser.parse_args(line))
        return capsys.readouterr().out

    return run


def table(text: str) -> list[list[str]]:
    """The rows of a Markdown table."""
    return [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]


def test_one_run(said: Callable[..., str], project: Project) -> None:
    """Commits that left metrics/eval.json as it was are no runs of their own."""
    (project.folder / "README.md").write_text("changed")
    project.commit()
    found = list(csv.DictReader(said("--csv").splitlines()))
    metrics, [row] = project.json(METRICS), found
    assert row["run"] == project.git("log", "--format=%h", "-1", "HEAD~1").strip()
    assert (row["set"], row["best_of"], row["reason"]) == ("a", "", "")
    assert (row["model"], row["revision"]) == (metrics["model"], metrics["revision"])
    assert row["pairs"] == str(project.json("metrics/pairs.json")["kept"])
    costs = [
        project.json(str(path.relative_to(project.folder))) for path in project.folder.glob("metrics/runtime/*.json")
    ]
    assert float(row["seconds"]) == pytest.approx(sum(cost["seconds"] for cost in costs))
    for aim, value in metrics["registered"].items():
        assert row[f"{aim}_verdict"] == value["verdict"]
        assert [float(row[f"{aim}_{name}"]) for name in ("mean", "low", "high")] == [
            value[name] for name in ("mean", "low", "high")
        ]
    assert "best of" not in said()


def test_best_of_several_is_marked_and_said_to_look_better_than_it_is(
    said: Callable[..., str], project: Project
) -> None:
    """By how much safer the tuned model is, among those that lost no helpfulness."""
    met = {"verdict": "met", "mean": -0.5, "low": -0.9, "high": -0.1}
    change(project, safety=met | {"mean": -0.9, "low": -1.0}, helpfulness={"verdict": "not met"})
    project.commit()
    change(project, safety=met, helpfulness={"verdict": "met"})
    project.commit()
    best = project.git("rev-parse", "--short", "HEAD").strip()
    change(project, safety=met | {"mean": -0.3})
    project.commit()
    text = said()
    [first, second, third, fourth] = text.splitlines()[1:5]
    assert f"{best} " in first and "(best of 4)" in first
    assert text.count("(best of 4)") == 1
    assert "met -0.50 [-0.90, -0.10]" in first
    assert "met -0.30" in second and "can't tell +0.00" in third and "not met" in fourth
    assert "\nbest of 4: picked among 4 runs by its result on the evaluation set they share, so it looks better" in text


def test_runs_on_other_prompts_are_a_set_of_their_own(said: Callable[..., str], project: Project) -> None:
    change(project, safety={"verdict": "met", "mean": -0.5, "low": -0.9, "high": -0.1})
    lock = (project.folder / "dvc.lock").read_text(encoding="utf-8")
    [md5] = {out for path, out in project.outs().items() if path == "data/prompts/eval.jsonl"}
    (project.folder / "dvc.lock").write_text(lock.replace(md5, "f" * 32), encoding="utf-8")
    project.commit()
    text = said()
    assert [row[1].strip() for row in table(said("--md"))[2:]] == ["a", "b"]
    assert "best of" not in text


def test_runs_that_are_all_alike_have_no_best(said: Callable[..., str], project: Project) -> None:
    write_json(project.folder / METRICS, project.json(METRICS) | {"seed": 8})
    project.commit()
    text = said()
    assert len(text.splitlines()) == 5
    assert "best of" not in text


def test_a_run_that_registered_nothing_is_in_no_set_and_never_best(
    said: Callable[..., str], project: Project, unjudged: Built
) -> None:
    """Before it, two that did, one of them the better."""
    change(project, safety={"verdict": "met", "mean": -0.5, "low": -0.9, "high": -0.1})
    project.commit()
    write_json(project.folder / METRICS, unjudged.project.json(METRICS))
    project.commit()
    name = project.git("rev-parse", "--short", "HEAD").strip()
    rows = {row["run"]: row for row in csv.DictReader(said("--csv").splitlines())}
    assert sorted((row["set"], row["best_of"]) for row in rows.values()) == [("", ""), ("a", ""), ("a", "2")]
    assert [rows[name][of] for of in ("set", "safety_verdict", "safety_metric", "safety_mean", "reason")] == [
        "", "can't tell", "", "", ""
    ]  # fmt: skip
    [line] = [line for line in said().splitlines() if line.startswith(name)]
    assert "can't tell: no judge that passed its exam was registered" in line


def test_experiments_stand_beside_commits(said: Callable[..., str], project: Project) -> None:
    """One whose metrics are those of a commit is not another run."""
    (project.folder / "README.md").write_text("changed")
    project.dvc("exp", "save", "--name", "same")
    change(project, safety={"verdict": "met", "mean": -0.5, "low": -0.9, "high": -0.1})
    project.dvc("exp", "save", "--name", "safer")
    project.git("reset", "-q", "--hard")
    commit = project.git("rev-parse", "--short", "HEAD").strip()
    rows = {row["run"]: row for row in csv.DictReader(said("--csv").splitlines())}
    assert set(rows) == {"safer", f"{commit} same"}
    assert rows["safer"]["best_of"] == "2"
    project.git("checkout", "-q", "HEAD~1")
    assert {row["run"] for row in csv.DictReader(said("--csv").splitlines())} == {"safer", "same"}


def test_the_run_in_this_folder_before_it_is_committed(said: Callable[..., str], project: Project) -> None:
    change(project, safety={"verdict": "met", "mean": -0.5, "low": -0.9, "high": -0.1})
    path = project.folder / "metrics/runtime/eval.json"
    path.write_bytes(path.read_bytes())  # newer than the metrics, as the stage leaves it
    assert said().splitlines()[1].split()[:6] == [".", "(best", "of", "2)", "a", "met"]


def test_runs_that_cannot_be_read_are_listed_with_the_reason(said: Callable[..., str], project: Project) -> None:
    metrics, pairs = project.json(METRICS), project.json("metrics/pairs.json")
    write_json(project.folder / METRICS, {name: value for name, value in metrics.items() if name != "arms"})
    project.commit()
    (project.folder / METRICS).write_text("{", encoding="utf-8")
    project.commit()
    (project.folder / METRICS).unlink()
    project.commit()
    write_json(project.folder / METRICS, metrics | {"seed": 8})
    write_json(project.folder / "metrics/pairs.json", {name: value for name, value in pairs.items() if name != "kept"})
    project.commit()
    names = project.git("log", "-4", "--format=%h").split()
    for text in (said(), said("--md"), said("-n", "1")):
        unread = text.partition("\nNot read:\n")[2].splitlines()
        assert [line.split()[0] for line in unread] == [names[0], names[2], names[3]]
        assert "metrics/pairs.json: kept: field required" in unread[0]
        assert "metrics/eval.json: " in unread[1]
        assert "metrics/eval.json: arms: field required" in unread[2]
    rows = {row["run"]: row for row in csv.DictReader(said("--csv").splitlines())}
    assert names[1] not in rows, "a commit that took the metrics away is no run"
    assert (rows[names[0]]["seed"], rows[names[0]]["pairs"]) == ("8", "")
    assert "arms: field required" in rows[names[3]]["reason"]


def test_a_limit_says_how_many_are_left_out(said: Callable[..., str], project: Project) -> None:
    for seed in (8, 9):
        write_json(project.folder / METRICS, project.json(METRICS) | {"seed": seed})
        project.commit()
    text = said("-n", "2")
    assert len([line for line in text.splitlines() if "local/toy@" in line]) == 2
    assert "\n1 more; " in text
    with pytest.raises(UserError, match="-n must be at least 0"):
        said("-n", "-1")


def test_markdown(said: Callable[..., str]) -> None:
    head, rule, row = table(said("--md"))
    assert [cell.strip() for cell in head] == list(leaderboard.HEAD)
    assert len(head) == len(rule) == len(row)


def test_nothing_to_list(
    tmp_path: Path, project: Project, said: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project.git("checkout", "-q", "HEAD~1")
    with pytest.raises(UserError, match=r"^no commit or experiment has metrics/eval\.json; run dvc repro"):
        said()
    (tmp_path / "bare").mkdir()
    monkeypatch.chdir(tmp_path / "bare")
    with pytest.raises(UserError, match=r"^no git history here"):
        said()


def test_letters_of_evaluation_sets() -> None:
    assert [leaderboard._letter(at) for at in (0, 25, 26, 27, 26 * 27)] == ["a", "z", "aa", "ab", "aaa"]
