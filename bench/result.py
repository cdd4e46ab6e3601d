"""Keep the last run of the pipeline as a result that can be published.

    python -m bench.result NAME --command "dvc exp run -S …"

writes results/NAME.json: commit, command, parameters, seed, machine, date, and what all stages measured and cost.
tests/test_results.py holds what README and docs quote of it against that file.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from pathlib import Path
from typing import Any

from bench import machine
from ccai.base import params
from ccai.base.errors import UserError, run
from ccai.base.files import read_json, write_json

FOLDER = Path("results")
METRICS = Path("metrics")

OF_THE_RUN = ("metrics", "dvc.lock", "params.yaml", "results")
"""What may differ from the commit: what the run itself changes, and its parameters, which are written down."""


def main() -> None:
    """Collect, check, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.result", description="Keep the last run's figures.")
    parser.add_argument("name", help="of the file in results/")
    parser.add_argument("--command", required=True, help="how it was run, to be repeated by others")
    options = parser.parse_args()
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", options.name):
        raise UserError(f"{options.name}: not a name for a result; use lower-case letters, digits, '.' and '-'")
    settings = params.load()
    stages = {path.stem: read_json(path) for path in sorted(METRICS.glob("*.json"))}
    if missing := {"prompts", "pairs", "train", "eval"} - stages.keys():
        raise UserError(
            f"{METRICS}: no {', '.join(sorted(missing))}.json; run the pipeline to its end first: dvc repro"
        )
    if any(stages[stage]["seed"] != settings.seed for stage in ("prompts", "pairs", "train", "eval")):
        raise UserError(f"{METRICS}: of another seed than params.yaml has; run dvc repro")
    values: dict[str, Any] = {
        "commit": _commit(),
        "params": settings.model_dump(mode="json"),
        "seed": settings.seed,
        "metrics": stages,
        "runtime": {path.stem: read_json(path) for path in sorted((METRICS / "runtime").glob("*.json"))},
    }
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{options.name}.json"
    write_json(path, machine.about(options.command) | values)
    print(f"written: {path}")


def _commit() -> str:
    """HEAD; what was run has to be in it."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        raise UserError("no commit to name; git commit what was run")
    line = ["git", "status", "--porcelain", "--", ".", *(f":!{name}" for name in OF_THE_RUN)]
    if changed := subprocess.run(line, capture_output=True, text=True).stdout.splitlines():
        raise UserError(
            f"{len(changed)} files are not in the commit, first {changed[0][3:]}; commit them, or run without"
        )
    return head.stdout.strip()


if __name__ == "__main__":
    run(main)
