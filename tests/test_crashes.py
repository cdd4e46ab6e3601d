"""Training killed at any change of a file, as of a checkpoint, of what is finished, of the adapter: the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.mark.parametrize("kills", [5, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_anywhere_it_goes_on_to_the_same_bytes(tiny_model: Path, tmp_path: Path, kills: int) -> None:
    """A process for itself, since torch's threads do not outlive a fork."""
    command = [sys.executable, "-m", "helpers.crashing", str(tmp_path), str(tiny_model), "7"]
    done = subprocess.run([*command, str(kills)], cwd=ROOT / "tests", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["places"] > 100
    assert len(told["killed"]) == min(kills, told["places"])
    assert told["wrong"] == {}
