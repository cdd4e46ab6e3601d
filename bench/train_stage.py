"""The train stage in this process, in a folder where nothing was trained before; `python -m bench.training` runs it."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import pandas
from transformers import Trainer

from bench import machine
from ccai.records import read_json, write_json
from stages import train


def main() -> None:
    """Run the stage; write the seconds that it spent in the trainer's loop, and peak memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    os.chdir(options.project)
    os.environ["CCAI_CACHE"] = str(options.project / "cache")
    loop, seconds, cpu = Trainer.train, 0.0, 0.0

    def timed(self: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal seconds, cpu
        started, before = time.perf_counter(), time.process_time()
        try:
            return loop(self, *arguments, **named)
        finally:
            seconds += time.perf_counter() - started
            cpu += time.process_time() - before

    Trainer.train = timed
    train.main()
    metrics = read_json(train.METRICS)
    result = {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_memory": machine.peak_memory(),
        "steps": metrics["steps"],
        "losses": pandas.read_csv(train.CURVE)["loss"].dropna().tolist(),
        "validation_loss": metrics["validation"]["loss"],
    }
    write_json(options.out, result)


if __name__ == "__main__":
    main()
