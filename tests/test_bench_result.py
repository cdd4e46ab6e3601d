"""`python -m bench.result` on the metrics of the demo run that are in git."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import ROOT
from helpers.project import Project, environment

from ccai.base.files import read_json


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A commit with a finished run's metrics."""
    found = Project(tmp_path / "project", environment(tmp_path / "home") | {"PYTHONPATH": str(ROOT)})
    found.folder.mkdir()
    shutil.copy(ROOT / "params.yaml", found.folder)
    shutil.copytree(ROOT / "metrics", found.folder / "metrics", ignore=shutil.ignore_patterns("runtime", "*.html"))
    found.git("init", "-q")
    found.commit()
    return found


def test_a_run_is_kept_with_all_that_it_takes_to_repeat_it(project: Project) -> None:
    done = project.module("bench.result", "demo", "--command", "make repro")
    assert done.returncode == 0, done.stderr
    found = read_json(project.folder / "results/demo.json")
    assert found["commit"] == project.git("rev-parse", "HEAD").strip()
    assert found["command"] == "make repro"
    assert found["metrics"]["eval"] == read_json(ROOT / "metrics/eval.json")
    assert (found["seed"], found["params"]["train"]["method"]) == (found["metrics"]["train"]["seed"], "dpo")
    assert {"date", "machine"} < set(found)


@pytest.mark.parametrize("fault", ["unfinished", "other seed", "code", "no git", "name"])
def test_what_could_not_be_repeated_is_refused(project: Project, fault: str) -> None:
    if fault == "unfinished":
        (project.folder / "metrics/eval.json").unlink()
    elif fault == "other seed":
        project.edit("params.yaml", "seed: 7", "seed: 8")
    elif fault == "code":
        (project.folder / "more.py").write_text("")
    elif fault == "no git":
        shutil.rmtree(project.folder / ".git")
    done = project.module("bench.result", "../x" if fault == "name" else "demo", "--command", "make repro")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert not (project.folder / "results").exists()
