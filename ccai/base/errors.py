"""The one error users are meant to see, and how a command turns it into exit code 2."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from pydantic import ValidationError

from ccai.base import supervise

BAD_INPUT = 2
"""Exit code when the user can fix it: a parameter, a file, a missing model, no network, no memory."""


class UserError(Exception):
    """Something the user can put right. The message is one line: where, what is wrong, what to do."""


def first(error: ValidationError, whole: str = "") -> str:
    """The first of the things that are wrong with a value: its key, or `whole` where there is none, and what it is."""
    found = error.errors()[0]
    key = ".".join(map(str, found["loc"])) or whole
    return (f"{key}: " if key else "") + found["msg"].removeprefix("Value error, ")


def run(main: Callable[[], None], about: str | None = None) -> None:
    """Run a command's `main`. Bad input: one line on stderr and exit 2. A stop signal: exit 128 + signal.

    What the system refuses (a file, the network, memory, a full disk below stdout) is bad input too, wherever it shows.
    SIGTERM is raised as `SystemExit`, so that `finally` blocks run (files are closed, locks released). A stage
    gets it when its dvc is gone, too.

    Args:
        about: what --help says of a command that takes no arguments; it is told of those it is given. None: `main`
            reads its own.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one, as from `orphan`, would end the tidying up in a traceback
        raise SystemExit(128 + number)

    _open_streams()
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # until now: ccai/__init__.py
        signal.signal(signal.SIGINT, signal.default_int_handler)
    supervise.watch()
    try:
        try:
            if about is not None:
                _no_arguments(about)
            main()
        finally:
            _flush_errors()
            sys.stdout.flush()  # what is left in the buffer meets a full disk here, not as the interpreter ends
    except UserError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _say("stopped: finished completions are kept; run the same command again to go on")
        raise SystemExit(128 + signal.SIGINT) from None
    except BrokenPipeError:  # `ccai show … | head`
        _send_nowhere(1)
        raise SystemExit(0) from None
    except OSError as error:
        _send_nowhere(1)  # it may be what is full
        where = "standard output" if error.filename is None else error.filename
        _fail(f"{where}: {error.strerror or error}; put that right and run again")
    except MemoryError:
        _fail("out of memory; free some, or take a smaller model or file")


def _fail(message: str) -> NoReturn:
    _say(f"error: {' '.join(message.split())}")
    raise SystemExit(BAD_INPUT) from None


def _say(line: str) -> None:
    with suppress(OSError):  # as below
        print(line, file=sys.stderr)
    _flush_errors()


def _flush_errors() -> None:
    try:
        sys.stderr.flush()
    except OSError:  # full, or gone: the exit code still tells
        _send_nowhere(2)


def _no_arguments(about: str) -> None:
    spec = sys.modules["__main__"].__spec__
    argparse.ArgumentParser(
        prog=f"python -m {spec.name}" if spec else None,
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()


def _open_streams() -> None:
    """Streams that are open, and that print any text.

    A stream that was closed before Python began (`>&-`) is sent nowhere: else the next file opened would get its
    number, and what a library prints would go into that. An encoding other than UTF-8 shows what it lacks as \\u….
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _send_nowhere(stream: int) -> None:
    """And what is still in its buffer with it: as the interpreter ends, it would fail with that again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
