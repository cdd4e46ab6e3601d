"""Ctrl-C in child processes."""

from __future__ import annotations

import signal


def heed_interrupts() -> None:
    """As on a terminal: what a shell script starts in the background ignores SIGINT, and its children with it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
