from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from ccai.base import cache


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"CCAI_CACHE": "mine", "DVC_ROOT": "root"}, "mine/journal"),
        ({"CCAI_CACHE": "", "DVC_ROOT": "root"}, "root/.ccai-cache/journal"),
        ({"DVC_ROOT": "root"}, "root/.ccai-cache/journal"),
        ({}, ".ccai-cache/journal"),
    ],
)
def test_order_of_places(
    environment: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("CCAI_CACHE", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache.folder("journal") == Path(expected)
    assert Path(expected).is_dir()
    (Path(expected) / "kept").touch()
    assert (cache.folder("journal") / "kept").exists()


def test_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = [sys.executable, "-m", "ccai", "journal", "stats"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "CCAI_CACHE": str(tmp_path / "file")}
    done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {tmp_path}/file/journal: Not a directory; set CCAI_CACHE to a folder that can be written to\n"
    )
