"""dvc.yaml says exactly what each stage reads: modules, files, parameters."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
NAMES = ["prompts", "responses", "critiques", "revisions", "pairs", "train", "eval"]


def modules(path: Path) -> set[str]:
    """Project files that `path` imports, through any number of imports, its own included."""
    found: set[str] = set()
    todo = [path]
    while todo:
        file = todo.pop()
        name = file.relative_to(ROOT).as_posix()
        if name in found:
            continue
        found.add(name)
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for module in names:
                if module.split(".")[0] in ("ccai", "stages"):
                    at = ROOT / module.replace(".", "/")
                    todo += [p for p in (at.with_suffix(".py"), at / "__init__.py") if p.exists()]
    return found


def test_stages_in_order() -> None:
    assert list(STAGES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_module_deps_are_exactly_the_imports(name: str) -> None:
    declared = {dep for dep in STAGES[name]["deps"] if dep.endswith(".py")}
    assert declared == modules(ROOT / "stages" / f"{name}.py") - {
        "stages/__init__.py",
        "ccai/__init__.py",
        "ccai/engines/__init__.py",
        "ccai/evaluate/suites/__init__.py",
    }


@pytest.mark.parametrize("name", NAMES)
def test_command_uses_the_module_form(name: str) -> None:
    assert STAGES[name]["cmd"] == f"python -m stages.{name}"


@pytest.mark.parametrize("name", NAMES)
def test_params_are_what_the_stage_reads(name: str) -> None:
    """`settings.a.b` in a stage's source means `a` or `a.b` among its params, and nothing more is declared."""
    read: set[str] = set()
    stage = ROOT / "stages" / f"{name}.py"
    handed = ["ccai/evaluate/arms.py", *(path for path in modules(stage) if path.startswith("ccai/evaluate/suites/"))]
    sources = [stage, *(ROOT / path for path in handed if name == "eval")]  # suites are handed the settings
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


def test_leaves_import_no_heavy_library() -> None:
    """Reading parameters or records must not cost the seconds that importing torch does."""
    heavy = {"torch", "transformers", "trl", "peft", "datasets", "dvc"}
    for leaf in (
        "params",
        "records",
        "constitution",
        "journal",
        "pairs",
        "rules",
        "stats",
        "conversation",
        "cache",
    ):
        for module in modules(ROOT / "ccai" / f"{leaf}.py"):
            tree = ast.parse((ROOT / module).read_text())
            names = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
            names |= {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
            assert not names & heavy, f"{leaf} imports {names & heavy} through {module}"


def test_no_stage_imports_a_stage() -> None:
    for name in NAMES:
        assert [m for m in modules(ROOT / "stages" / f"{name}.py") if m.startswith("stages/")] in (
            [f"stages/{name}.py"],
            ["stages/__init__.py", f"stages/{name}.py"],
        )
