"""`python -m ccai.resume` on three stages that take no time; tests/test_pipeline.py has it on the real ones."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import ROOT
from moto import settings as moto_settings
from project import Project, environment, s3_server

STAGES = """\
stages:
  first:
    cmd: python first.py
    deps: [first.py]
    outs: [first.txt]
  second:
    cmd: mkdir folder && sort first.txt > folder/one && echo two > folder/two && echo {} > metrics.json
    deps: [first.txt]
    outs: [folder]
    metrics: [{metrics.json: {cache: false}}]
  third:
    cmd: cat folder/one other.txt > third.txt
    deps: [folder, other.txt]
    outs: [third.txt]
"""
FIRST = "import pathlib\npathlib.Path('first.txt').write_text('one\\nmore\\n')\n"
CONTENT = {
    "first.txt": "one\nmore\n",
    "folder/one": "more\none\n",
    "folder/two": "two\n",
    "third.txt": "more\none\nother\n",
}
TWO = hashlib.md5(b"two\n").hexdigest()


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Run, committed, and pushed to a folder beside it. Tests copy it."""
    top = tmp_path_factory.mktemp("resume")
    project = Project(top / "project", environment(top / "home") | {"PYTHONPATH": str(ROOT)})
    project.folder.mkdir()
    for name, text in {"dvc.yaml": STAGES, "first.py": FIRST, "other.txt": "other\n"}.items():
        (project.folder / name).write_text(text)
    shutil.copy(ROOT / "params.yaml", project.folder)
    project.git("init", "-q")
    project.dvc("init", "-q")
    project.dvc("remote", "add", "-q", "-d", "storage", "../store")
    assert project.repro() == ["first", "second", "third"]
    project.commit()
    project.dvc("push")
    return project


@pytest.fixture
def project(pushed: Project, tmp_path: Path) -> Project:
    """A copy of it with its remote, its home and, beside them, room for clones."""
    shutil.copytree(pushed.folder.parent, tmp_path, dirs_exist_ok=True)
    own = environment(tmp_path / "home")
    return Project(tmp_path / "project", pushed.environment | {name: own[name] for name in own if name != "PATH"})


@pytest.fixture
def clone(project: Project) -> Project:
    """A clone on a machine that has neither data nor DVC's memory of what is stored."""
    fresh = project.clone(project.folder.parent / "clone")
    fresh.environment.update(environment(project.folder.parent / "other-home"))
    fresh.environment["PYTHONPATH"] = str(ROOT)
    return fresh


def resumed(project: Project) -> list[str]:
    """Stages that a resume ran; it must succeed and leave the project's data complete, here and in the remote."""
    done = project.module("ccai.resume")
    assert done.returncode == 0, done.stdout + done.stderr
    for oid in project.outs().values():
        assert stored(project, oid).exists() or oid == project.outs()["metrics.json"]
    assert project.stale() == set()
    return [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")]


def refused(project: Project) -> str:
    """The one line with which it ends, exit code 2, no stage run."""
    done = project.module("ccai.resume")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Running stage" not in done.stdout
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def stored(project: Project, oid: str) -> Path:
    """Where an object lies in the remote."""
    return project.folder.parent / "store/files/md5" / oid[:2] / oid[2:]


def content(project: Project) -> dict[str, str]:
    return {name: (project.folder / name).read_text() for name in CONTENT if (project.folder / name).exists()}


def test_where_all_is_done_nothing_runs(project: Project) -> None:
    assert resumed(project) == []
    assert content(project) == CONTENT


def test_fresh_clone_gets_its_data_and_runs_nothing(clone: Project) -> None:
    assert resumed(clone) == []
    assert content(clone) == CONTENT
    assert clone.git("status", "--porcelain") == ""


def test_only_what_is_stale_runs_and_its_result_is_stored(clone: Project) -> None:
    (clone.folder / "other.txt").write_text("another\n")
    assert resumed(clone) == ["third"]
    assert content(clone) == CONTENT | {"third.txt": "more\none\nanother\n"}


def test_same_bytes_from_changed_code_run_nothing_downstream(clone: Project) -> None:
    clone.edit("first.py", "import", "# so\nimport")
    assert resumed(clone) == ["first"]


def test_data_of_another_commit_is_replaced_and_not_made_again(project: Project) -> None:
    project.edit("first.py", "one", "1")
    assert resumed(project) == ["first", "second", "third"]
    project.commit()
    project.git("checkout", "-q", "HEAD~1")
    assert resumed(project) == []
    assert content(project) == CONTENT


def test_what_was_not_pushed_is_pushed(project: Project) -> None:
    shutil.rmtree(project.folder.parent / "store")
    assert resumed(project) == []


def test_file_of_a_folder_that_vanished_from_the_remote_is_stored_again(project: Project) -> None:
    """DVC takes a folder's files for stored where the folder's own object is: its push does nothing."""
    gone = stored(project, TWO)
    gone.unlink()
    project.dvc("push")
    assert not gone.exists()
    assert resumed(project) == []
    assert gone.read_text() == "two\n"


@pytest.mark.parametrize("out", ["first.txt", "folder", "third.txt"])
def test_object_that_is_nowhere_is_named(clone: Project, out: str) -> None:
    stored(clone, clone.outs()[out]).unlink()
    line = refused(clone)
    assert line.startswith(f"{out}: neither here nor in storage (")
    assert line.endswith("; dvc push where it was made, or make it again: dvc repro")


def test_file_of_a_folder_that_is_nowhere_is_an_error(clone: Project) -> None:
    stored(clone, TWO).unlink()
    assert refused(clone).startswith("folder: neither here nor in storage (")


def test_empty_remote_names_all(clone: Project) -> None:
    shutil.rmtree(clone.folder.parent / "store")
    assert refused(clone).startswith("first.txt, folder, third.txt: neither here nor in storage (")


def test_object_that_is_nowhere_but_made_again_is_no_error(clone: Project) -> None:
    stored(clone, clone.outs()["third.txt"]).unlink()
    (clone.folder / "other.txt").write_text("another\n")
    assert resumed(clone) == ["third"]


def test_object_that_is_nowhere_behind_a_stage_that_runs_is_no_error(clone: Project) -> None:
    stored(clone, clone.outs()["third.txt"]).unlink()
    clone.edit("first.py", "import", "# so\nimport")
    assert resumed(clone) == ["first", "third"]


def test_stages_run_with_the_python_of_the_command(project: Project) -> None:
    project.environment["PATH"] = os.defpath
    (project.folder / "first.py").write_text("import sys\nopen('first.txt', 'w').write(sys.prefix)\n")
    resumed(project)
    assert (project.folder / "first.txt").read_text() == sys.prefix


def test_wrong_parameter_comes_before_everything(clone: Project) -> None:
    clone.edit("params.yaml", "beta:", "bta:")
    assert refused(clone).startswith("params.yaml: train.")
    assert content(clone) == {}


def test_without_a_remote_says_how_to_set_one(clone: Project) -> None:
    clone.dvc("remote", "remove", "storage")
    assert refused(clone) == "no remote is set; dvc remote add -d storage s3://BUCKET/PREFIX"


def test_without_dvc(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    bare = Project(tmp_path, environment(tmp_path / "home") | {"PYTHONPATH": str(ROOT)})
    assert "not inside of a DVC repository" in refused(bare)


def test_failed_stage_is_told_last(project: Project) -> None:
    (project.folder / "first.py").write_text("raise SystemExit('no luck')\n")
    done = project.module("ccai.resume")
    assert done.returncode == 2
    assert "no luck" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: dvc repro failed, its message is above; ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_reaches_the_stage(project: Project, number: signal.Signals) -> None:
    (project.folder / "first.py").write_text("open('started', 'w').close()\nimport time\ntime.sleep(600)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "ccai.resume"],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (project.folder / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    below = psutil.Process(process.pid).children(recursive=True)
    assert any("first.py" in " ".join(each.cmdline()) for each in below)
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    assert not [each for each in below if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


# S3


@pytest.fixture
def s3(clone: Project) -> Iterator[Project]:
    """The clone with an S3 of our own on loopback as its remote; there is a bucket `bucket`, empty."""
    with s3_server() as (keys, _):
        clone.environment.update(keys)
        clone.dvc("remote", "modify", "storage", "url", "s3://bucket/prefix")
        yield clone


def test_s3_without_the_objects(s3: Project) -> None:
    expected = "first.txt, folder, third.txt: neither here nor in storage (s3://bucket/prefix); "
    assert refused(s3).startswith(expected)


def test_s3_without_credentials(s3: Project) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del s3.environment[name]
    assert refused(s3).startswith("storage (s3://bucket/prefix): no credentials; aws configure")


def test_s3_without_the_bucket(s3: Project) -> None:
    s3.dvc("remote", "modify", "storage", "url", "s3://other/prefix")
    assert refused(s3).startswith("storage (s3://other/prefix): no such bucket; create it")


def test_s3_denied(s3: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moto_settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)  # from here on, keys are checked
    assert refused(s3).startswith("storage (s3://bucket/prefix): denied (403); allow ListBucket")
