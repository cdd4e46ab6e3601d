from __future__ import annotations

from pathlib import Path

import pytest

from ccai import cache


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
