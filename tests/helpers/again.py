"""Stages run again in this process, with the settings of the toy run and a test's own: what readers are tested on."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ccai.base import files
from ccai.base.eval_params import Primary
from ccai.evaluate import comparison
from helpers.project import SUITES, Built, Project

PRIMARY = Primary(safety="heldout.judge.harmful", helpfulness="heldout.refusal.harmless_refused", bound=0.1)

INPUTS = ("conf", "data/constitutions", "data/eval_sets", "data/exam", "data/sources", "data/templates", "params.yaml")
"""What a checkout has before any stage runs, as far as stages read it."""


def inputs(built: Built, folder: Path, changes: Mapping[str, Any]) -> Project:
    """The toy run's inputs in a folder of their own, with changes to params.yaml; no stage has run there."""
    for name in INPUTS:
        source, target = built.project.folder / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    project = Project(folder, built.project.environment)
    project.set(changes)
    return project


def run(project: Project, stages: Sequence[str]) -> None:
    """Run stages in a folder, in this process and with the toy run's cache: its judge need not sit its exam again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
        patch.setenv("CCAI_CACHE", project.environment["CCAI_CACHE"])
        for stage in stages:
            importlib.import_module(f"stages.{stage}").main()


def evaluated(path: Path, measured: Mapping[str, Any], primary: Primary = PRIMARY) -> None:
    """Write other measures, by suite, into a metrics/eval.json, with what the eval stage says of them as registered.

    `judge` and what stands on top stay as they are.
    """
    found = files.read_json(path)
    assert found.keys() >= {"registered", *measured}, "the stage writes other keys now"
    suites = {name: value for name, value in {**found, **measured}.items() if name in SUITES}
    # As the stage puts them together.
    files.write_json(path, {**found, **suites, "registered": comparison.registered(suites, primary)})
