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


@pytest.mark.parametrize("name", code.STAGES)
def test_nothing_is_loaded_that_is_not_in_it(name: str) -> None:
    script = f"import sys, stages.{name}; print(*(n for n in sys.modules if n.partition('.')[0] in ('ccai', 'stages')))"
    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(loaded.stdout.split()) <= code.closure(f"stages.{name}").keys()


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of this project's own code."""
    for package in code.OURS:
        shutil.copytree(ROOT / package, tmp_path / package)
    monkeypatch.setattr(code, "ROOT", tmp_path)
    return tmp_path


LATE = ("pairs", "train", "eval", "report")
ALL = code.STAGES

USERS = {
    "base/files.py": ALL,
    "base/versions.py": ("responses", "critiques", "revisions", *LATE[:3]),
    "constitution/principles.py": ("responses", "critiques", "revisions", "pairs", "eval"),
    "stats/intervals.py": ("pairs", "eval", "report"),
    "rules/refusal.py": ("pairs", "eval", "report"),
    "rules/refusal.json": ("pairs", "eval", "report"),
    "models/load.py": ("responses", "critiques", "revisions", "pairs", "train", "eval"),
    "prompts/select.py": ("prompts",),
    "engines/sampling.py": ("responses", "critiques", "revisions", "pairs", "eval"),
    "generate/critique_revise.py": ("critiques", "revisions"),
    "judge/exam.py": ("pairs", "eval"),
    "pairs/gates.py": ("pairs", "eval"),
    "train/trainers.py": ("train",),
    "evaluate/suites/bias.py": ("eval",),
    "review/app.py": (),
    "report/page.py": ("report",),
    "report/pages/report.css": ("report",),
    "publish/export.py": (),
    "cli/show.py": (),
}
"""Files of each package, and the stages that use them."""


@pytest.mark.parametrize("name", USERS)
def test_an_edit_is_seen_by_the_stages_that_use_it_and_a_comment_by_none(copied: Path, name: str) -> None:
    def prints() -> dict[str, str]:
        return {stage: code.fingerprint(f"stages.{stage}") for stage in code.STAGES}

    before, path = prints(), copied / "ccai" / name
    text = path.read_text()
    if path.suffix == ".py":
        path.write_text(text.replace('"""', '"""Another word: ', 1) + "\n# A comment.\n")
        assert prints() == before
    path.write_text(text + ("\nMORE = 1\n" if path.suffix == ".py" else "\n"))
    after = prints()
    assert {stage for stage in code.STAGES if after[stage] != before[stage]} == set(USERS[name])


def test_how_weights_are_loaded_is_part_of_what_trains(copied: Path) -> None:
    before = code.fingerprint("stages.train")
    [path] = [path for path in (copied / "ccai").rglob("*.py") if '"nf4"' in path.read_text()]
    path.write_text(path.read_text().replace('"nf4"', '"fp4"'))
    assert code.fingerprint("stages.train") != before
