"""A real dvc is killed, alone: its stage notices, says so and tidies up. Nothing else stops it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import ROOT
from helpers.project import environment, working_in

from ccai.base import supervise

PROBE = """
import sys, time
from pathlib import Path
Path("begun").touch()
time.sleep(float(sys.argv[1]))  # libraries are imported
from ccai.base.errors import run
def main():
    try:
        Path("running").touch()
        time.sleep(120)
    finally:
        Path("tidied").touch()
run(main)
"""
PATIENCE = 300
"""Seconds after which something hangs; a slow machine needs many of them."""
SAID = "stopped: dvc is gone; finished completions are kept; dvc repro goes on\n"
STAYS = "python probe.py {}; echo $? > status"
"""A command for which the shell stays between dvc and the probe."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A DVC project, not started yet; no process that works there outlives the test."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "probe.py").write_text(PROBE)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=folder, check=True, env=variables())
    yield folder
    for process in working_in(folder):
        process.kill()


def variables() -> dict[str, str]:
    home = Path(os.environ["CCAI_CACHE"]).parent / "home"
    return environment(home) | {"PYTHONPATH": str(ROOT), "SHELL": "/bin/sh"}


def start(folder: Path, stage: str, *command: str, name: str = "probe") -> subprocess.Popen[str]:
    """`dvc repro` of a project of one stage, or a command that runs it."""
    (folder / "dvc.yaml").write_text(f"stages:\n  {name}:\n    cmd: {stage}\n")
    command = command or (sys.executable, "-m", "dvc", "repro")
    return subprocess.Popen(
        command, cwd=folder, env=variables(), text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def appears(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path.name}"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_stage_stops_when_its_dvc_is_killed(folder: Path, number: signal.Signals) -> None:
    dvc = start(folder, STAYS.format(0))
    appears(folder / "running")
    dvc.send_signal(number)  # it is a zombie until `communicate`, which waits for the stage's end
    assert dvc.communicate(timeout=PATIENCE)[1] == SAID
    appears(folder / "status")
    assert (folder / "status").read_text() == "143\n"
    assert (folder / "tidied").exists()


def test_without_a_shell_between(folder: Path) -> None:
    dvc = start(folder, "exec python probe.py 0")
    appears(folder / "running")
    dvc.kill()
    assert dvc.communicate(timeout=PATIENCE)[1] == SAID
    assert (folder / "tidied").exists()


def test_dvc_that_is_killed_before_the_stage_begins_to_watch(folder: Path) -> None:
    dvc = start(folder, STAYS.format(2))
    appears(folder / "begun")
    dvc.kill()
    assert dvc.communicate(timeout=PATIENCE)[1] == SAID
    appears(folder / "status")
    assert (folder / "status").read_text() == "143\n"


def test_who_started_dvc_may_go(folder: Path) -> None:
    """A closed terminal's shell, or make: dvc goes on, and so does its stage."""
    shell = start(folder, STAYS.format(0), "sh", "-c", f"{sys.executable} -m dvc repro; true")
    appears(folder / "running")
    shell.kill()
    shell.wait()
    time.sleep(4 * supervise.EVERY)
    left = {process.name(): process for process in working_in(folder)}
    assert not (folder / "tidied").exists()
    assert len(left) >= 2, "dvc and its stage"


def test_dvc_inside_another_stage(folder: Path) -> None:
    """In a session of its own, as `make resume` starts it: the inner one counts, and only that."""
    (folder / "inner").mkdir()
    for name in ("probe.py", ".dvc"):
        (folder / name).rename(folder / "inner" / name)
    (folder / "inner/dvc.yaml").write_text(f"stages:\n  probe:\n    cmd: {STAYS.format(0)}\n")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=folder, check=True, env=variables())
    outer = start(folder, f"cd inner && exec setsid -w {sys.executable} -m dvc repro", name="outer")
    appears(folder / "inner/running")
    outer.kill()
    time.sleep(4 * supervise.EVERY)
    assert not (folder / "inner/tidied").exists()
    [inner] = [p for p in working_in(folder / "inner") if p.cmdline()[-2:] == ["dvc", "repro"]]
    inner.kill()
    appears(folder / "inner/status")
    assert (folder / "inner/status").read_text() == "143\n"


def test_what_dvc_has_not_started_has_no_watch() -> None:
    code = "import threading; from ccai.base.errors import run; run(lambda: print(threading.active_count()))"
    done = subprocess.run([sys.executable, "-c", code], env=variables(), capture_output=True, text=True)
    assert done.stdout == "1\n"


def test_process_with_the_number_of_another_is_not_that(tmp_path: Path) -> None:
    process = psutil.Process()
    assert supervise._alive(process)
    process._create_time = process.create_time() - 1000  # as of one that ended long before
    process._ident = (process.pid, process.create_time())
    assert not supervise._alive(process)


STUCK = """
import os, threading
from ccai.base import supervise
from ccai.base.errors import run
supervise.GRACE = 1
def main():
    try:
        print(os.getpid(), flush=True)
        threading.Event().wait()
    finally:
        print("tidies up for ever", flush=True)
        threading.Event().wait()
run(main)
"""


def test_process_that_does_not_end_is_ended() -> None:
    """A shell in dvc's part: all that counts is who told whom of a stage."""
    command = ["sh", "-c", 'DVC_STAGE=x "$0" -c "$1" & wait', sys.executable, STUCK]
    shell = subprocess.Popen(command, env=variables(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert shell.stdout
    stuck = psutil.Process(int(shell.stdout.readline()))
    shell.kill()
    assert shell.communicate(timeout=PATIENCE) == ("tidies up for ever\n", SAID)
    psutil.wait_procs([stuck], timeout=PATIENCE)
    assert not stuck.is_running()
