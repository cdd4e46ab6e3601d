"""Contemplative constitutional AI: conversations, completions, preference pairs, training and evaluation."""

import logging
import os
import signal
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from types import FrameType

__version__ = "0.1.0"


def _interrupted(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):  # stderr may be closed
        os.write(2, b"stopped: nothing was begun\n")
    raise SystemExit(128 + number)


# The imports of a command may take seconds. While `python -m` looks for the module, sys.argv[0] is "-m"; the installed
# command has its own path there. From then until `errors.run` takes over, Ctrl-C would end in a traceback.
_command = Path(sys.argv[0]).name if sys.argv else ""
if _command in ("-m", "ccai") and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _interrupted)

# Before torch is imported: OpenMP threads that wait by spinning starve each other as soon as anything else runs on
# the machine, and threads that sleep at once wake up late in every small operation. So: spin for about 0.1 ms.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "30000")

# Before PEFT imports it: on a CPU it warns about a kernel that this project does not use.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

# PEFT and TRL use names that transformers deprecates; users cannot do anything about it.
warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
