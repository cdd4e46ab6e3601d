"""The page of the curves: two runs' training as the real stage wrote it, in a real Chromium that has no network."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.project import Built, Project

from ccai.base.errors import UserError
from ccai.report import curves

PAGE = "dvc_plots/index.html"
CURVE = "metrics/plots/train.csv"

LINES = """() => [...document.querySelectorAll("#training figure")].map(figure =>
    [...figure.querySelectorAll("path")].filter(path => /stroke: ?var\\(--arm/.test(path.getAttribute("style") || "")
        && path.getAttribute("d").includes("L")).map(path => path.getAttribute("style")))"""
"""Of each plot: the style of each line."""


@pytest.fixture(scope="module")
def runs(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The toy run, committed as `fast`, and one that learned more slowly, as `slow`."""
    project = built.project.copy(tmp_path_factory.mktemp("curves") / "project")
    project.git("tag", "fast")
    project.set({"train": {"learning_rate": 0.001}})
    done = project.module("stages.train")
    assert done.returncode == 0, done.stderr
    project.commit()
    project.git("tag", "slow")
    return project


def show(project: Project, chromium: Any) -> tuple[Any, list[str], list[str], Any]:
    """The page in a browser without a network, what it asked for and what it complained of."""
    context = chromium.new_context(offline=True, viewport={"width": 375, "height": 800})
    tab = context.new_page()
    asked, complaints = list[str](), list[str]()
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto((project.folder / PAGE).as_uri())
    return tab, [url for url in asked if not url.startswith("data:")], complaints, context


def test_two_runs_are_drawn_over_each_other_without_a_network(runs: Project, chromium: Any) -> None:
    done = runs.module("ccai", "curves", "diff", "fast", "slow")
    assert (done.returncode, done.stderr) == (0, "")
    tab, asked, complaints, context = show(runs, chromium)
    columns = csv.DictReader((runs.folder / CURVE).read_text().splitlines()).fieldnames or []
    plots = tab.evaluate(LINES)
    assert len(plots) == len({"phase", "step", "epoch"} ^ set(columns))
    assert all(len(set(lines)) == 2 for lines in plots), "one line for each run, each of its own colour"
    assert tab.locator("#training .key li").all_inner_texts() == ["fast", "slow"]
    before_and_after = tab.locator("#training table td").all_inner_texts()
    assert len(set(before_and_after)) > len(before_and_after) // 2
    assert tab.locator("#figures img").count() == 4
    loaded = "[...document.images].every(image => image.complete && image.naturalWidth > 99)"
    assert tab.evaluate(loaded)
    assert tab.evaluate("document.documentElement.scrollWidth") == 375
    assert (asked, complaints) == ([(runs.folder / PAGE).as_uri()], [])
    context.close()


def test_one_run_and_what_lies_here_beside_the_last_commit(runs: Project) -> None:
    for arguments in (["show"], ["diff", "-o", "elsewhere"]):
        done = runs.module("ccai", "curves", *arguments)
        assert (done.returncode, done.stderr) == (0, ""), arguments
    assert (runs.folder / "elsewhere/index.html").is_file()
    for arguments in (["show", "fast", "slow"], ["diff", "nosuch"]):
        done = runs.module("ccai", "curves", *arguments)
        assert done.returncode == 2 and "Traceback" not in done.stderr, arguments


HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>" + "x" * 3000


def test_what_a_run_says_is_text(runs: Project, chromium: Any, tmp_path: Path) -> None:
    """A revision may be anybody's."""
    project = runs.copy(tmp_path / "project")
    project.edit(CURVE, "dpo,", f"{HOSTILE},")
    project.edit("metrics/train.json", '"warnings": [', f'"warnings": ["{HOSTILE}"')
    done = project.module("ccai", "curves", "show")
    assert (done.returncode, done.stderr) == (0, "")
    tab, asked, complaints, context = show(project, chromium)
    assert tab.evaluate("window.hacked") is None
    assert tab.locator("#training").inner_text().count(HOSTILE[:60]) == 2
    assert tab.evaluate("document.documentElement.scrollWidth") == 375
    assert (len(asked), complaints) == (1, [])
    context.close()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"(?s).*", ""),
        (r"(?s)\n.*", "\n"),
        (r"\ndpo,1,", "\ndpo,one,"),
        (r"\ndpo,1,", "\ndpo,nan,"),
        (r"\ndpo,1,", "\ndpo,,"),
        (r"^phase,step,", "phase,stride,"),
        (r"\ndpo,1,[^\n]*", "\ndpo"),
        (r"\ndpo,1,", '\n"dpo,1,'),
        (r"\ndpo,1,", "\ndpo\0,1e999,"),
        (r"\ndpo,1,", "\n" + "x" * 200_000 + ","),
    ],
)
def test_a_curve_that_training_did_not_write_is_one_line(
    runs: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    csv.field_size_limit(131_072)  # Python's own, which inspect_ai raises for the whole process
    (tmp_path / "metrics/plots").mkdir(parents=True)
    text = (runs.folder / CURVE).read_text()
    (tmp_path / CURVE).write_text(re.sub(old, new, text, count=1))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(CURVE)) as caught:
        curves.comparison([None])
    assert len(str(caught.value).splitlines()) == 1
