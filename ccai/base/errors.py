"""`UserError`, the one exception meant for users, and how a command turns it into exit code 2."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from pydantic import ValidationError

from ccai.base import supervise

BAD_INPUT = 2
"""Exit code for what the user can fix: a parameter, a file, a missing model, no network, no memory."""


class UserError(Exception):
    """An error the user can fix. Its message is one line: where, what is wrong, what to do."""


def first(error: ValidationError, whole: str = "", shown: Callable[[Any], str] | None = None) -> str:
    """The first error of a validation: its key (`whole` if it has none) and its message.

    Args:
        shown: a value as the message quotes it; None: it quotes none, as there may be a secret in a wrong place.
    """
    problem = error.errors()[0]
    key = ".".join(map(str, problem["loc"])) or whole
    message = problem["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if problem["type"] == "extra_forbidden":
        message = "no such key"
    elif shown and problem["type"] not in ("missing", "value_error"):
        message += f", not {shown(problem['input'])}"
    return f"{key}: {message}" if key else message


def run(main: Callable[[], None], about: str | None = None) -> None:
    """Run a command's `main`. Bad input: one line on stderr and exit 2. A stop signal: exit 128 + signal.

    Errors of the operating system count as bad input wherever they occur: a file, the network, memory, a full disk.
    SIGTERM is raised as `SystemExit`, so that `finally` blocks run (files are closed, locks released). A stage
    receives it as well when its dvc has ended.

    Args:
        about: the description that --help prints for a command without arguments. None: `main` parses its own.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second signal would end the cleanup in a traceback
        raise SystemExit(128 + number)

    _open_streams()
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # replaces the handler of ccai/__init__.py
        signal.signal(signal.SIGINT, signal.default_int_handler)
    supervise.watch()
    try:
        try:
            if about is not None:
                _no_arguments(about)
            main()
        finally:
            _flush_errors()
            sys.stdout.flush()  # so that a full disk shows here, not as the interpreter exits
    except UserError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _say("stopped: finished completions are kept; run the same command again to go on")
        raise SystemExit(128 + signal.SIGINT) from None
    except BrokenPipeError:  # `ccai show … | head`
        _send_nowhere(1)
        raise SystemExit(0) from None
    except OSError as error:
        _send_nowhere(1)  # stdout may be what is full
        where = "standard output" if error.filename is None else error.filename
        _fail(f"{where}: {error.strerror or error}; fix that and run again")
    except MemoryError:
        _fail("out of memory; free some, or take a smaller model or file")


def _fail(message: str) -> NoReturn:
    _say(f"error: {' '.join(message.split())}")
    raise SystemExit(BAD_INPUT) from None


def _say(line: str) -> None:
    with suppress(OSError):  # full or closed
        print(line, file=sys.stderr)
    _flush_errors()


def _flush_errors() -> None:
    try:
        sys.stderr.flush()
    except OSError:  # full or closed: the exit code remains
        _send_nowhere(2)


def _no_arguments(about: str) -> None:
    spec = sys.modules["__main__"].__spec__
    argparse.ArgumentParser(
        prog=f"python -m {spec.name}" if spec else None,
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()


def _open_streams() -> None:
    r"""Make sure that stdin, stdout and stderr are open and can print any text.

    A stream that was closed before Python began (`>&-`) goes to /dev/null. Otherwise the next file opened would get
    its number, and a library's output would go into that file. An encoding that lacks a character prints it as \u….
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
    """Send a stream and what its buffer holds to /dev/null, or the flush at exit would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
