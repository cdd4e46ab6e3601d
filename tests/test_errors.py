"""What a command's end looks like from outside: exit code, stderr, and that `finally` has run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT
from helpers.interrupts import heed_interrupts

PRELUDE = "import sys, time\nfrom ccai.base.errors import UserError, run\n"
WAITING = """
def main():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("tidied", flush=True)
run(main)
"""


def start(code: str, **options: int) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code], env=environment, text=True, preexec_fn=heed_interrupts, **pipes
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def test_success() -> None:
    assert ended(start("run(lambda: print('done'))")) == (0, "done\n", "")


def test_user_error_is_one_line_and_2() -> None:
    code = r"def main(): raise UserError('a.txt:3: two' + chr(10) + '   lines; correct it')" + "\nrun(main)"
    assert ended(start(code)) == (2, "", "error: a.txt:3: two lines; correct it\n")


def test_user_error_while_another_is_handled_is_one_line() -> None:
    code = """
def main():
    try:
        open("/nowhere")
    except OSError:
        raise UserError("/nowhere: no such file; make it")
run(main)
"""
    assert ended(start(code)) == (2, "", "error: /nowhere: no such file; make it\n")


def test_our_own_mistakes_keep_their_traceback() -> None:
    status, _, err = ended(start("run(lambda: 1 / 0)"))
    assert status == 1
    assert err.startswith("Traceback") and err.endswith("ZeroDivisionError: division by zero\n")


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (signal.SIGTERM, 143, ""),
        (
            signal.SIGINT,
            130,
            "stopped: finished completions are kept; run the same command again to go on\n",
        ),
    ],
)
def test_signals_tidy_up_and_tell(number: signal.Signals, status: int, said: str) -> None:
    process = start(WAITING)
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert ended(process) == (status, "tidied\n", said)


def test_own_exit_code_is_kept() -> None:
    assert ended(start("run(lambda: sys.exit(5))"))[0] == 5


@pytest.mark.parametrize("lines", [1, 100_000], ids=["held in the buffer until the end", "more than a pipe holds"])
def test_reader_that_leaves_is_no_error(lines: int) -> None:
    """`ccai show … | head -1`"""
    read, write = os.pipe()
    process = start(f"time.sleep(0.2)\ndef main():\n    for n in range({lines}): print(n)\nrun(main)", stdout=write)
    os.close(write)
    os.close(read)
    assert ended(process)[::2] == (0, "")
