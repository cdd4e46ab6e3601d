"""Stops a stage whose dvc has ended: nothing would record its outputs.

A signal to dvc alone (`kill`, or the kernel's out-of-memory killer) leaves its stage running, while dvc's lock is
gone: the next `dvc repro` would start the same stage a second time.
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
"""Variable in which DVC gives a command its stage. DVC's own process has none, or another stage's."""

EVERY = 0.5
"""Seconds between two checks."""

GRACE = 30.0
"""Seconds that a stage has to end after the signal."""


def watch() -> None:
    """If DVC started this process, watch dvc from a thread. When dvc ends, print one line and stop as by SIGTERM.

    A process that does not end within `GRACE` seconds, such as in a long library call, is ended without cleanup.
    """
    if STAGE in os.environ:
        threading.Thread(target=_watch, name="orphan", daemon=True).start()


def starter() -> psutil.Process | None:
    """The dvc process that started this one; None if it has ended already.

    It is the nearest ancestor outside the stage (the shell that DVC starts belongs to the stage). The process group
    tells it from a process that adopts orphans: DVC keeps its commands in its own group.
    """
    try:
        for ancestor in psutil.Process().parents():
            if not _belongs_to_stage(ancestor):
                return ancestor if os.getpgid(ancestor.pid) == os.getpgrp() else None
    except (psutil.NoSuchProcess, ProcessLookupError):  # it, or a process in between, has just ended
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
    with suppress(OSError):  # the terminal may have closed, too
        print("stopped: dvc is gone; finished completions are kept; dvc repro goes on", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(128 + signal.SIGTERM)


def _alive(process: psutil.Process) -> bool:
    """Whether it is this very process, not another with its number, and not a zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
