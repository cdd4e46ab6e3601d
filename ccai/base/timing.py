"""Figures that vary between runs (seconds, tokens/s, memory, device), kept apart from those that are compared."""

from __future__ import annotations

import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any

from ccai.base.files import write_json

FOLDER = Path("metrics/runtime")


class Stopwatch:
    """Seconds since its creation."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start


def write(stage: str, stopwatch: Stopwatch, **values: Any) -> None:
    """Write metrics/runtime/STAGE.json: wall seconds, peak memory of this process in MB, and `values`."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    record = {"seconds": round(stopwatch.seconds, 1), "peak_memory_mb": round(peak / 1e6)}
    write_json(FOLDER / f"{stage}.json", record | values | {"machine": platform.machine()})
