"""The train stage in this process, in a folder where nothing was trained before; `python -m bench.training` runs it."""

from __future__ import annotations

import argparse
import os
import time
from functools import wraps
from pathlib import Path
from typing import Any

import pandas
from transformers import Trainer

from bench import machine
from ccai.base.files import read_json, write_json
from stages import train


class Clock:
    """What a method of transformers' trainer takes, from when this is made on, in all calls.

    Attributes:
        seconds: by the clock on the wall; `cpu_seconds` of all threads of this process.
    """

    def __init__(self, name: str) -> None:
        self.seconds = self.cpu_seconds = 0.0
        method = getattr(Trainer, name)

        @wraps(method)
        def timed(*arguments: Any, **named: Any) -> Any:
            started, before = time.perf_counter(), time.process_time()
            try:
                return method(*arguments, **named)
            finally:
                self.seconds += time.perf_counter() - started
                self.cpu_seconds += time.process_time() - before

        setattr(Trainer, name, timed)


def main() -> None:
    """Run the stage; write the seconds that it spent in the trainer's loop, and peak memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    os.chdir(options.project)
    os.environ["CCAI_CACHE"] = str(options.project / "cache")
    before = Clock("_evaluate")  # the loop's own evaluations only; `evaluate` is also called after it
    loop = Clock("train")
    train.main()
    metrics = read_json(train.METRICS)
    result = {
        "seconds": loop.seconds - before.seconds,
        "cpu_seconds": loop.cpu_seconds - before.cpu_seconds,
        "loop_seconds": loop.seconds,
        "peak_memory": machine.peak_memory(),
        "steps": metrics["steps"],
        "losses": pandas.read_csv(train.CURVE)["loss"].dropna().tolist(),
        "validation_loss": metrics["validation"]["loss"],
    }
    write_json(options.out, result)


if __name__ == "__main__":
    main()
