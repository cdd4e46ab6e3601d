"""A project whose params.yaml `ccai use` switches."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ccai.cli import use

ROOT = Path(__file__).parents[2]
PARAMS = (ROOT / "params.yaml").read_text(encoding="utf-8")
MODELS = yaml.safe_load((ROOT / "conf/models.yaml").read_text(encoding="utf-8"))
DEFAULT = next(iter(MODELS))


def set_to(name: str, text: str) -> str:
    return use.overlay(text, use.scale_values(name, ROOT / "conf/scales"), f"{name}.yaml").text


# Whatever scale, recipe and model the working tree is set to.
SHIPPED = set_to(
    "demo",
    use.overlay(
        PARAMS,
        {f"models.{role}": DEFAULT for role in use.ROLES} | use.file_values("default", ROOT / "conf/recipes"),
        "",
    ).text,
)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of what the command reads and writes, as the current folder, set to the demo scale."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(SHIPPED, encoding="utf-8")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "ccai", "use", *arguments]
    return subprocess.run(line, env=environment, capture_output=True, text=True)


def comments(text: str) -> list[str]:
    return re.findall(r"#.*", text)
