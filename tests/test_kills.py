"""Runs that are killed again and again end with the same bytes as one that nobody touched, and nothing is paid twice.

The seed of what happens when is printed and can be set: CCAI_TEST_SEED=5 python -m pytest -m slow tests/test_kills.py
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import project as toy
from helpers.project import Project, working_in

from ccai.base import supervise
from ccai.generate.journal import Journal

pytestmark = pytest.mark.slow

SEED = int(os.environ.get("CCAI_TEST_SEED", "3"))

TOTALS = {"responses": 96, "critiques": 384, "revisions": 384, "eval heldout base": 24, "eval heldout tuned": 24}
"""Completions of each step, in the order of the run."""

ALL, BEFORE_EVAL = sum(TOTALS.values()), 96 + 384 + 384

WORK = {
    "prompts": {"train": 96, "eval": 24},
    "responses": {"max_new_tokens": 96},
    "critiques": {"examples": 1, "max_new_tokens": 96},
    "revisions": {"max_new_tokens": 96},
    "train": {"batch_size": 8, "per_device": 8},
}
"""So much that each step takes several batches."""

TO_GENERATE = re.compile(r"^(.+): ([\d,]+) completions to generate \(([\d,]+) reused", re.MULTILINE)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Run once from nothing to the end. Its cache folder is `cache` beside the project."""
    folder = tmp_path_factory.mktemp("untouched")
    toy.toy_model(folder / "models/toy", ends=1)
    project = toy.make(folder / "project", folder / "home", folder / "models/toy")
    project.environment["CCAI_CACHE"] = str(folder / "cache")
    project.set(WORK)
    project.commit()
    project.copy(folder / "clean")
    assert len(project.repro()) == 9
    journal = Journal(folder / "cache/journal")
    assert (len(journal), journal.duplicates, journal.damaged) == (ALL, 0, 0)
    return project


def fresh(untouched: Project, folder: Path) -> Project:
    """The same before its first run, with a cache of its own."""
    return Project(untouched.folder.parent / "clean", untouched.environment).copy(
        folder / "project", CCAI_CACHE=str(folder / "cache")
    )


def same(project: Project, untouched: Project) -> None:
    assert project.outs() == untouched.outs()
    assert (project.folder / "dvc.lock").read_bytes() == (untouched.folder / "dvc.lock").read_bytes()
    assert project.stale() == set()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """No process that works there outlives the test."""
    yield tmp_path
    for process in working_in(tmp_path):
        process.kill()


def repro(project: Project, log: Path) -> subprocess.Popen[bytes]:
    """`dvc repro`, leader of a process group of its own as on a terminal, heeding SIGINT as there."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro"],
            cwd=project.folder,
            env=project.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def lines(journal: Path) -> int:
    """Finished entries, counted without opening the journal."""
    return sum(path.read_bytes().count(b"\n") for path in journal.glob("*.jsonl"))


def test_killed_twenty_times(untouched: Project, folder: Path) -> None:
    """Process group or dvc alone; at a number of entries, or at any time: as libraries load, in training, in DVC."""
    chance = random.Random(SEED)
    print(f"seed {SEED}")
    project, kept = fresh(untouched, folder), folder / "cache/journal"
    kinds = [("group", signal.SIGKILL)] * 10 + [("group", signal.SIGTERM)] * 2 + [("group", signal.SIGINT)] * 2
    kinds += [("alone", signal.SIGKILL)] * 4 + [("alone", signal.SIGTERM)] * 2
    chance.shuffle(kinds)
    moments = ["entries"] * 12 + ["a stage"] * 4
    chance.shuffle(moments)
    moments += ["train", "train", "entries", "entries"]
    before: dict[str, str] = {}
    for number, ((whom, with_), moment) in enumerate(zip(kinds, moments, strict=True)):
        had, log = lines(kept), folder / f"{number}.log"
        end = BEFORE_EVAL if number < 16 else ALL
        dvc = repro(project, log)
        if moment == "entries" and had < end:
            goal = had + 1 + chance.randrange(max(1, 2 * (end - had) // (17 - number if number < 16 else 20)))
            about = f"{goal} entries"
            wait(dvc, log, lambda goal=goal: lines(kept) >= goal)
        else:
            # Not beyond the stages that later kills are for, however fast the machine is.
            started, too_far = ("(train|eval)", "eval") if moment == "train" else ("", "(train|eval)")
            seconds = chance.uniform(0, 5)
            about = f"{moment} + {seconds:.1f} s"
            wait(dvc, log, lambda started=started, log=log: begun(started, log))
            until = time.monotonic() + seconds
            wait(dvc, log, lambda end=too_far, log=log, until=until: time.monotonic() >= until or begun(end, log))
        (os.killpg if whom == "group" else os.kill)(dvc.pid, with_)
        dvc.wait()
        now = {entry.key: entry.at for entry in Journal(kept).entries()}
        print(f"kill {number}: {with_.name} to {whom} at {about}: {len(now)} entries, dvc {dvc.returncode}")
        assert before.items() <= now.items()
        before = now
        reuses(log.read_text(), had)
    last = repro(project, folder / "last.log")
    assert last.wait() == 0, (folder / "last.log").read_text()
    journal = Journal(kept)
    assert before.items() <= {entry.key: entry.at for entry in journal.entries()}.items()
    print(f"{journal.duplicates} duplicates, {journal.damaged} damaged lines, {len(list(kept.iterdir()))} segments")
    assert len(journal) == ALL
    assert journal.duplicates == 0
    same(project, untouched)
    assert working_in(folder) == []
    entries = list(journal.entries())
    assert project.module("ccai", "journal", "prune", "--yes").returncode == 0
    assert len(list(kept.iterdir())) == 1
    assert list(Journal(kept).entries()) == entries


def begun(stage: str, log: Path) -> bool:
    """Whether a stage runs or has run; `stage` is a pattern of its name, "" means any."""
    return re.search(rf"Running stage '{stage}", log.read_text()) is not None


def wait(dvc: subprocess.Popen[bytes], log: Path, reached: Callable[[], bool]) -> None:
    while not reached():
        assert dvc.poll() is None, f"it ended before its time\n{log.read_text()}"
        time.sleep(0.01)


def reuses(output: str, had: int) -> None:
    """Each step that began took from the journal whatever was there of it."""
    for step, _, reused in TO_GENERATE.findall(output):
        earlier = sum(TOTALS[name] for name in list(TOTALS)[: list(TOTALS).index(step)])
        assert int(reused) >= min(max(had - earlier, 0), TOTALS[step]), output


def test_second_run_beside_an_orphan(untouched: Project, folder: Path) -> None:
    """dvc alone is killed and started again at once, while its first stage is still there."""
    project, kept = fresh(untouched, folder), folder / "cache/journal"
    first = repro(project, folder / "first.log")
    while not lines(kept):
        assert first.poll() is None
        time.sleep(0.01)
    [stage] = [process for process in working_in(folder) if "stages.responses" in process.cmdline()]
    stage.suspend()  # or it may be done before it looks whether dvc is there
    first.kill()
    first.wait()  # DVC takes a zombie's locks for held
    second = repro(project, folder / "second.log")
    time.sleep(2 * supervise.EVERY)
    stage.resume()
    assert second.wait() == 0, (folder / "second.log").read_text()
    assert "stopped: dvc is gone; " in (folder / "first.log").read_text()
    same(project, untouched)
    assert working_in(folder) == []


def test_two_runs_at_once_share_a_journal(untouched: Project, folder: Path) -> None:
    """Two folders, one cache: what one finds is there it takes; what both write is the same."""
    one = fresh(untouched, folder / "one")
    two = fresh(untouched, folder / "two")
    two.environment["CCAI_CACHE"] = one.environment["CCAI_CACHE"]
    logs = [folder / "one.log", folder / "two.log"]
    runs = [repro(project, log) for project, log in zip((one, two), logs, strict=True)]
    for run, log in zip(runs, logs, strict=True):
        assert run.wait() == 0, log.read_text()
    journal = Journal(folder / "one/cache/journal")
    assert (len(journal), journal.damaged) == (ALL, 0)
    for project in (one, two):
        same(project, untouched)


def test_two_experiments_at_once_share_the_journal(untouched: Project, folder: Path) -> None:
    """From the queue, by two workers: that is how DVC runs two in one project."""
    project = fresh(untouched, folder)
    for name, resamples in (("one", 110), ("two", 120)):
        project.dvc("exp", "run", "--queue", "--name", name, "-S", f"eval.resamples={resamples}")
    project.dvc("exp", "run", "--run-all", "-j", "2")
    journal = Journal(folder / "cache/journal")
    assert (len(journal), journal.damaged) == (ALL, 0)
    locks = [project.git("show", f"{ref}:dvc.lock") for ref in experiments(project)]
    assert len(locks) == 2
    for name in ("data/responses.jsonl", "data/revisions.jsonl", "data/eval"):
        assert all(untouched.outs()[name] in lock for lock in locks), name


def experiments(project: Project) -> list[str]:
    """Refs of the experiments `one` and `two`."""
    refs = project.git("for-each-ref", "--format=%(refname)", "refs/exps").split()
    return [ref for ref in refs if ref.endswith(("/one", "/two"))]


def test_damaged_journal_is_said_aloud_and_made_good(untouched: Project, folder: Path) -> None:
    """The tail torn off, a line in the middle corrupted: two completions are written again, to the same bytes."""
    project = untouched.copy(folder / "project", CCAI_CACHE=str(folder / "cache"))
    shutil.copytree(untouched.folder.parent / "cache", folder / "cache")
    segments = sorted((folder / "cache/journal").iterdir(), key=lambda path: path.stat().st_mtime)
    content = segments[0].read_bytes()  # of the responses
    middle = len(content) // 2
    segments[0].write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 : -20])
    for name in ("data/responses.jsonl", "metrics/responses.json"):
        (project.folder / name).unlink()
    done = project.module("stages.responses")
    assert done.returncode == 0, done.stderr
    assert "responses: the journal has 2 damaged lines; passed over" in done.stdout.splitlines()
    cost = project.json("metrics/runtime/responses.json")
    assert (cost["generated"], cost["reused"]) == (2, 94)
    same(project, untouched)
