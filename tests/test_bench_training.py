"""The training benchmark on the tiny model: both contenders do the same work, and the ratios are of the right sign."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from helpers import trained

from bench import training


@pytest.mark.slow
def test_both_train_the_same(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    trained.project(tiny_model, {"batch_size": 4, "per_device": 2})
    trained.write_pairs(8, validation=2)
    command = [sys.executable, "-m", "bench.training", "--rounds", "1", "--results", "results"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(Path("results/training.json").read_text())
    ours, script = found["contenders"]["ours"], found["contenders"]["trl"]
    assert ours["steps"] == script["steps"] == 2
    for loss in ("first_loss", "last_loss"):
        assert ours[loss] == pytest.approx(script[loss], rel=1e-4)
    assert found["tokens"] > 8 * 2 * 10
    assert found["settings"]["seed"] == 7
    [times] = ours["each_round"]
    assert 0 < times["seconds"] < times["loop_seconds"] < times["whole_seconds"], "evaluation apart, but not forgotten"
    [times] = script["each_round"]
    assert 0 < times["seconds"] == times["loop_seconds"] < times["whole_seconds"]
    assert {"date", "command", "machine"} <= set(found)


def test_ratio_above_one_means_that_ours_is_faster() -> None:
    run = {"peak_memory": 4e9, "steps": 1, "losses": [0.7, 0.6], "validation_loss": 0.6}
    fast = run | {"seconds": 1.0, "cpu_seconds": 1.0, "loop_seconds": 1.5, "whole_seconds": 2.0, "peak_memory": 2e9}
    slow = run | {"seconds": 2.0, "cpu_seconds": 4.0, "loop_seconds": 6.0, "whole_seconds": 8.0}
    ratios = training.summary({"ours": [fast], "trl": [slow]}, tokens=100)["ours_over_trl"]
    assert ratios == {
        "tokens_per_second": 2,
        "tokens_per_cpu_second": 4,
        "loop_tokens_per_second": 4,
        "whole_tokens_per_second": 4,
        "peak_memory_mb": 0.5,
        "each_round": [2],
    }
