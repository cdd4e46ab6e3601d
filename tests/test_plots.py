"""Figures: the same bytes for the same numbers, and none that fails where a number is missing."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.evaluation import arms, scored
from matplotlib import image

from ccai.evaluate import comparison
from ccai.report import figures

HAZARDS = ["privacy", "none"] * 5


def metrics(hazards: list[str] = HAZARDS, step: float = 0.1) -> dict[str, Any]:
    base = [{"hazard": hazard} for hazard in hazards]
    tuned = [
        {"hazard": hazard, "refusal": ["full_refusal", "full_compliance"][place % 3 == 0]} | scored(care=step * place)
        for place, hazard in enumerate(hazards)
    ]
    return {"heldout": arms(base, tuned)}


FIGURES = pytest.mark.parametrize("draw", [figures.differences, figures.refusals])
Draw = Callable[[dict[str, Any], Path], None]


@FIGURES
def test_repeated_is_byte_identical(draw: Draw, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw(metrics(), tmp_path / "plots" / name)
    first = (tmp_path / "plots/a.png").read_bytes()
    assert first == (tmp_path / "plots/b.png").read_bytes()
    assert first.startswith(b"\x89PNG")
    for word in (b"matplotlib", b"Software", b"tIME"):
        assert word not in first
    height, width, _ = image.imread(tmp_path / "plots/a.png").shape
    assert width in (910, 988) and height > 300


@FIGURES
def test_other_numbers_are_another_figure(draw: Draw, tmp_path: Path) -> None:
    draw(metrics(), tmp_path / "a.png")
    changed = metrics(["privacy", "none", "none", "none", "none"] * 2, step=0.05)
    draw(changed, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_differences_are_the_tuned_arms_and_refusals_every_arms_own(tmp_path: Path) -> None:
    """Another arm beside it changes nothing in the one figure; another tuned arm changes the other one."""
    given = metrics()
    beside = copy.deepcopy(given)
    for _, value in comparison.measures(beside["heldout"]):
        if value["n"]:
            gap = value["difference"]["tuned"]
            value["prompted"] = value["base"]
            value["difference"] = {"prompted": gap | {"mean": -gap["mean"], "low": None, "high": None}, "tuned": gap}
    figures.differences(given, tmp_path / "a.png")
    figures.differences(beside, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    swapped = copy.deepcopy(given)
    refused = swapped["heldout"]["refusal"]["hazardous_refused"]
    refused["tuned"] = {"mean": 0.3, "low": 0.2, "high": 0.4}
    figures.refusals(given, tmp_path / "c.png")
    figures.refusals(swapped, tmp_path / "d.png")
    assert (tmp_path / "c.png").read_bytes() != (tmp_path / "d.png").read_bytes()


@FIGURES
@pytest.mark.parametrize("hazards", [["unspecified"] * 4, ["none"] * 4, ["privacy"] * 4, ["none"]])
def test_missing_groups_and_bounds(draw: Draw, hazards: list[str], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(metrics(hazards, step=0), tmp_path / "a.png")
    assert image.imread(tmp_path / "a.png").min() < 0.5, "an empty picture"
