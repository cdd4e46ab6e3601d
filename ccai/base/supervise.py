"""A stage whose dvc is gone stops by itself: nobody would record what it goes on to write.

A signal to dvc alone (`kill`, or the kernel short of memory) leaves its stage running, without the lock that went with
dvc: the next `dvc repro` would start the same stage beside it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress

import psutil

STAGE = "DVC_STAGE"
"""Variable in which DVC tells a command which stage it is. DVC itself has not got it, or another's."""

EVERY = 0.5
"""Seconds between two looks."""

GRACE = 30.0
"""Seconds that a stage has to end in after it was told to."""


def watch() -> None:
    """If DVC started this process, watch from a thread; when dvc is gone, say one line and stop as by SIGTERM.

    A process that does not end in `GRACE` seconds, as in a long call into a library, is ended without tidying up.
    """
    if STAGE in os.environ:
        threading.Thread(target=_watch, name="orphan", daemon=True).start()


def starter() -> psutil.Process | None:
    """The dvc that started this process; None if it is gone already.

    It is the nearest ancestor that is not part of the stage itself, as the shell is that DVC starts. Who adopts an
    orphan is told from it by the process group: DVC leaves its commands in its own.
    """
    try:
        for ancestor in psutil.Process().parents():
            if not _belongs_to_stage(ancestor):
                return ancestor if os.getpgid(ancestor.pid) == os.getpgrp() else None
    except (psutil.NoSuchProcess, ProcessLookupError):  # it, or what is between, ended just now
        pass
    return None


def _belongs_to_stage(process: psutil.Process) -> bool:
    try:
        return bool(process.environ().get(STAGE) == os.environ[STAGE])
    except psutil.AccessDenied:  # another user's
        return False


def _watch() -> None:
    dvc = starter()
    while dvc is not None and _alive(dvc):
        time.sleep(EVERY)
    with suppress(OSError):  # the terminal may be gone with it
        print("stopped: dvc is gone; finished completions are kept; dvc repro goes on", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(128 + signal.SIGTERM)


def _alive(process: psutil.Process) -> bool:
    """Whether it is this very process, not another with its number, and no zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
