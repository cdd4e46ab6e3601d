from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from ccai.base import versions
from ccai.base.errors import UserError


def pin(folder: Path, monkeypatch: pytest.MonkeyPatch, **pins: str) -> None:
    (folder / "conf").mkdir()
    (folder / "conf/versions.yaml").write_text(yaml.safe_dump(pins))
    monkeypatch.chdir(folder)


def test_installed_versions_are_the_shipped_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    pins = yaml.safe_load(versions.VERSIONS.read_text())
    assert versions.check(*pins) == pins
    assert versions.check("torch") == {"torch": pins["torch"]}


def test_builds_may_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch 2.13.0+cpu on one machine and 2.13.0+cu130 on another are the same release."""
    plain = version("torch").partition("+")[0]
    pin(tmp_path, monkeypatch, torch=plain)
    assert versions.check("torch") == {"torch": plain}


def test_mismatch_names_both_and_only_what_is_asked_for_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = version("pyyaml")
    pin(tmp_path, monkeypatch, pyyaml=there, pytest="0.0.1", nosuchpackage="1.0")
    assert versions.check("pyyaml") == {"pyyaml": there}
    with pytest.raises(UserError) as error:
        versions.check("pyyaml", "pytest")
    assert str(error.value) == (
        f"conf/versions.yaml: pytest 0.0.1 is pinned, {version('pytest')} is installed; "
        "pip install pytest==0.0.1, or pin what you have"
    )
    with pytest.raises(UserError, match=r"nosuchpackage 1\.0 is pinned, none is installed; pip install"):
        versions.check("nosuchpackage")


def test_outside_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"conf/versions\.yaml: no such file; run this from the project's top folder"):
        versions.check("torch")
