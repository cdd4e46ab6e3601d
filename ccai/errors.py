"""The one error users are meant to see, and how a command turns it into exit code 2."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from pydantic import ValidationError

from ccai import orphan

BAD_INPUT = 2
"""Exit code when the user can fix it: a parameter, a file, a missing model, no network, no memory."""


class UserError(Exception):
    """Something the user can put right. The message is one line: where, what is wrong, what to do."""


def first(error: ValidationError, whole: str = "") -> str:
    """The first of the things that are wrong with a value: its key, or `whole` where there is none, and what it is."""
    found = error.errors()[0]
    key = ".".join(map(str, found["loc"])) or whole
    return (f"{key}: " if key else "") + found["msg"].removeprefix("Value error, ")


def run(main: Callable[[], None]) -> None:
    """Run a command's `main`. Bad input: one line on stderr and exit 2. A stop signal: exit 128 + signal.

    SIGTERM is raised as `SystemExit`, so that `finally` blocks run (files are closed, locks released). A stage
    gets it when its dvc is gone, too.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    orphan.watch()
    try:
        main()
        sys.stdout.flush()  # what is left in the buffer meets a closed pipe here, not as the interpreter ends
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(BAD_INPUT) from None
    except KeyboardInterrupt:
        print("stopped: finished completions are kept; run the same command again to go on", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    except BrokenPipeError:  # `python -m ccai.show … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
