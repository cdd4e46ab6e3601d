"""dvc.yaml says exactly what each stage reads: code, files, parameters."""

from __future__ import annotations

import ast
import json
from typing import Any

import pytest
import yaml
from conftest import ROOT

from ccai.base import code

STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
NAMES = ["prompts", "responses", "critiques", "revisions", "pairs", "train", "eval"]


def test_stages_in_order() -> None:
    assert list(STAGES) == ["code", *NAMES, "report"]


@pytest.mark.parametrize("name", code.STAGES)
def test_code_is_told_by_its_fingerprint_alone(name: str) -> None:
    assert {"code.json": [name]} in STAGES[name]["params"]
    assert not [dep for dep in STAGES[name]["deps"] if dep.startswith(("ccai", "stages"))]


def test_lock_is_of_this_code() -> None:
    """What is committed was made by the code that is committed."""
    now = {name: code.fingerprint(f"stages.{name}") for name in code.STAGES}
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    assert json.loads((ROOT / "code.json").read_text()) == now
    assert {name: lock[name]["params"]["code.json"][name] for name in code.STAGES} == now


@pytest.mark.parametrize("name", NAMES)
def test_command_uses_the_module_form(name: str) -> None:
    assert STAGES[name]["cmd"] == f"python -m stages.{name}"


@pytest.mark.parametrize("name", NAMES)
def test_params_are_what_the_stage_reads(name: str) -> None:
    """`settings.a.b` in a stage's source means `a` or `a.b` among its params, and nothing more is declared."""
    read: set[str] = set()
    handed = (
        "stages",
        "ccai.pairs.run",
        "ccai.prompts.evaluation_sets",
        "ccai.evaluate.run",
        "ccai.evaluate.arms",
        "ccai.evaluate.suites",
    )  # which are handed the settings
    sources = [path for module, path in code.closure(f"stages.{name}").items() if module.startswith(handed)]
    for node in (node for source in sources for node in ast.walk(ast.parse(source.read_text()))):
        chain: list[str] = []
        at: ast.AST = node
        while isinstance(at, ast.Attribute):
            chain.insert(0, at.attr)
            at = at.value
        if chain and isinstance(at, ast.Name) and at.id == "self":
            at = ast.Name(chain.pop(0))
        if chain and isinstance(at, ast.Name) and at.id == "settings":
            read.add(".".join(chain))
    read = {key for key in read if not any(other.startswith(f"{key}.") for other in read)}
    declared = {key for key in STAGES[name]["params"] if isinstance(key, str)}
    for key in read:
        assert any(key == known or key.startswith(f"{known}.") for known in declared), f"{key} is read"
    for known in declared:
        assert any(key == known or key.startswith(f"{known}.") for key in read), f"{known} is declared, not read"


def test_library_versions_are_those_of_requirements() -> None:
    pins = dict(
        line.split(";")[0].strip().split("==")
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if "==" in line
    )
    for package, version in yaml.safe_load((ROOT / "conf/versions.yaml").read_text()).items():
        assert pins[package] == version


@pytest.mark.parametrize("name", NAMES)
def test_no_stage_imports_a_stage(name: str) -> None:
    found = {module for module in code.closure(f"stages.{name}") if module.startswith("stages")}
    assert found == {"stages", f"stages.{name}"}
