"""Trains in forked copies of this process, each killed (SIGKILL) as it is about to change its n-th file or folder.

python -m helpers.crashing FOLDER MODEL SEED KILLS: prints, as JSON, in how many places a training can be killed, in
which it was, and which of those that went on ended otherwise than one that was left alone.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from conftest import as_model

from helpers.training import PARAMS, train

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")
SHORT = PARAMS.model_copy(update={"epochs": 1.0})


class Killer:
    """An audit hook; without `at` it only counts."""

    def __init__(self, folder: Path, at: int | None) -> None:
        self._folder, self._at, self.seen = str(folder), at, 0

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        written = event == "open" and str(args[0]).startswith(self._folder) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if written or event in CHANGES:
            self.seen += 1
            if self.seen == self._at:
                os.kill(os.getpid(), signal.SIGKILL)


def attempt(model: Path, folder: Path, at: int | None) -> int:
    """How a training in a process of its own ended: 0, 1 or minus the signal's number."""
    folder.mkdir(exist_ok=True)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1), os.dup2(log, 2)
            os.environ["CCAI_CACHE"] = str(folder / "cache")
            killer = Killer(folder, at)
            sys.addaudithook(killer)
            result = train(as_model(model), folder / "out/adapter", params=SHORT)
            kept = {"metrics": result.metrics, "curve": result.curve, "places": killer.seen}
            (folder / "result.json").write_text(json.dumps(kept))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def left(folder: Path) -> dict[str, Any]:
    """All that is to be the same whatever happened on the way: results, weights, and no remains."""
    kept = json.loads((folder / "result.json").read_text())
    del kept["places"]
    weights = {path.name: path.read_bytes() for path in (folder / "out/adapter").iterdir()}
    [work] = (folder / "cache/training").iterdir()
    return {
        **kept,
        "weights": weights,
        "remains": sorted(p.name for p in [*work.iterdir(), *(folder / "out").iterdir()]),
    }


def main(folder: Path, model: Path, seed: int, kills: int) -> dict[str, Any]:
    if attempt(model, folder / "whole", None):
        raise SystemExit((folder / "whole/log").read_text())
    whole, places = left(folder / "whole"), json.loads((folder / "whole/result.json").read_text())["places"]
    rng = random.Random(seed)
    chosen = sorted(rng.sample(range(1, places + 1), min(kills, places)))
    wrong = {}
    for at in chosen:
        here = folder / str(at)
        ended = [attempt(model, here, at), attempt(model, here, None)]
        if ended != [-signal.SIGKILL, 0] or left(here) != whole:
            wrong[at] = [ended, (here / "log").read_text()]
    here, ended = folder / "again and again", []
    while not ended or ended[-1]:  # each attempt goes on from where the one before was killed
        ended.append(attempt(model, here, rng.randint(5, places)))
        if ended[-1] == 1:
            break
    if ended[-1] or left(here) != whole:
        wrong["again and again"] = [ended, (here / "log").read_text()]
    return {"places": places, "killed": chosen, "in a row": len(ended) - 1, "wrong": wrong}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
