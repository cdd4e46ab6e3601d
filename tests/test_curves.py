"""The page of the curves: DVC's plots of two runs, drawn in a real Chromium that has no network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest
import yaml
from test_report import ROOT

DEFINED: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
[CURVE] = DEFINED["stages"]["train"]["plots"]
STEPS = 4
COLUMNS = ("loss", "rewards/accuracies", "rewards/margins", "rewards/chosen")

LINES = """() => [...document.querySelectorAll(".vega-embed")].map(plot => [
    Object.fromEntries([...plot.querySelectorAll(".mark-line path[d^=M]")]
        .map(line => [line.getAttribute("stroke"), line.getAttribute("d")])),
    [...plot.querySelectorAll(".role-legend-label text")].map(label => label.textContent),
])"""
"""Of each plot: the path of each line by its colour, and the legend's names."""


def call(*command: str) -> subprocess.CompletedProcess[str]:
    names = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = os.environ | names | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The curves of this project's dvc.yaml in two revisions, `slow` and `fast`."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        call("git", "init", "--quiet")
        call(sys.executable, "-m", "dvc", "init", "--quiet")
        stage = {"cmd": "true", "plots": [CURVE]}
        Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": stage}, "plots": DEFINED["plots"]}))
        [path] = CURVE
        Path(path).parent.mkdir(parents=True)
        for name, rate in (("slow", 0.01), ("fast", 0.1)):
            rows = [{"step": step} | dict.fromkeys(COLUMNS, rate * step) for step in range(1, STEPS + 1)]
            pandas.DataFrame(rows).to_csv(path, index=False)
            call("git", "add", "--all")
            call("git", "commit", "--quiet", "--message", name)
            call("git", "tag", name)
    return folder


def test_two_runs_are_drawn_over_each_other_without_a_network(
    runs: Path,
    chromium: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(runs)
    call(sys.executable, "-m", "ccai.curves", "diff", "slow", "fast")
    page = Path("dvc_plots/index.html").resolve().as_uri()
    context = chromium.new_context(offline=True)
    tab = context.new_page()
    asked: list[str] = []
    errors: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(page)
    tab.wait_for_function(f"document.querySelectorAll('.vega-embed svg.marks').length === {len(COLUMNS)}")
    plots = tab.evaluate(LINES)
    context.close()
    assert asked == [page]
    assert errors == []
    for lines, legend in plots:
        assert len(lines) == 2, "one line for each run, each of its own colour"
        assert all(path.count("L") == STEPS - 1 for path in lines.values())
        assert legend == ["slow", "fast"]
