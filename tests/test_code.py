"""The hash of code follows every import, and nothing that does not run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from ccai.base import code

MODULES = {
    "ccai/__init__.py": "",
    "ccai/work.py": '"""Doc."""\n\nfrom ccai import used\nfrom ccai.parts import deep\n\n\ndef run() -> int:\n'
    '    """Doc."""\n    import ccai.late as late\n\n    return used.ONE + deep.TWO + late.THREE  # why\n',
    "ccai/used.py": "from . import beside\nfrom .parts.deeper import FOUR\n\nONE = 1\n",
    "ccai/beside.py": "",
    "ccai/late.py": "THREE = 3\n",
    "ccai/parts/__init__.py": "",
    "ccai/parts/deep.py": "from ..far import FIVE\nTWO = 2\n",
    "ccai/parts/deeper.py": "from ccai import work\nFOUR = 4\n",  # in a circle
    "ccai/far.py": "FIVE = 5\n",
    "ccai/other.py": "import ccai.work\n",  # imported by none
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in MODULES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(code, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", MODULES)
def test_any_module_that_is_imported_counts_and_no_other(project: Path, name: str) -> None:
    before = code.fingerprint("ccai.work")
    (project / name).write_text(MODULES[name] + "\nMORE = 1\n")
    assert (code.fingerprint("ccai.work") == before) == (name == "ccai/other.py")


def test_comments_docstrings_and_layout_do_not_count_and_all_else_does(project: Path) -> None:
    before = code.fingerprint("ccai.work")
    path = project / "ccai/work.py"
    same = MODULES["ccai/work.py"].replace("Doc.", "Another.").replace("# why", "# why not").replace("\n\n\n", "\n\n")
    path.write_text(same + '\n"""What stands by itself."""\n')
    assert code.fingerprint("ccai.work") == before
    for other in (
        same.replace("used.ONE + deep.TWO", "used.ONE - deep.TWO"),
        same.replace("return ", 'return "" and '),
    ):
        path.write_text(other)
        assert code.fingerprint("ccai.work") != before


@pytest.mark.parametrize("module", ["ccai.train.run", "stages.train"])
def test_nothing_is_loaded_that_is_not_in_it(module: str) -> None:
    script = f"import sys, {module}; print(*(n for n in sys.modules if n.partition('.')[0] in ('ccai', 'stages')))"
    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(loaded.stdout.split()) <= code.closure(module).keys()


def test_how_weights_are_loaded_is_part_of_what_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a copy of this project's own code."""
    before = code.fingerprint("ccai.train.run")
    shutil.copytree(ROOT / "ccai", tmp_path / "ccai")
    monkeypatch.setattr(code, "ROOT", tmp_path)
    assert code.fingerprint("ccai.train.run") == before
    [path] = [path for path in (tmp_path / "ccai").glob("*.py") if '"nf4"' in path.read_text()]
    text = path.read_text()
    path.write_text(text.replace('"nf4"', '"fp4"'))
    assert code.fingerprint("ccai.train.run") != before
    path.write_text(text)
    for name in ("report", "review"):
        with (tmp_path / f"ccai/{name}.py").open("a") as file:
            file.write("MORE = 1\n")
    assert code.fingerprint("ccai.train.run") == before
