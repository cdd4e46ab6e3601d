"""Every published recipe is one that params.yaml takes and that trains, and one command away from the way back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas
import pytest
import yaml
from helpers import trained
from helpers.scale import ROOT, SHIPPED, command, comments, project  # noqa: F401  (the fixture is used by name)

from ccai.base import params
from ccai.base.params import Train
from ccai.cli import use

RECIPES = sorted(path.stem for path in (ROOT / "conf/recipes").glob("*.yaml"))
PUBLISHED = [name for name in RECIPES if name != "default"]


def recipe(name: str) -> Train:
    text = use.overlay(SHIPPED, use.file_values(name, ROOT / "conf/recipes"), name).text
    return params.parse(yaml.safe_load(text), name).train


def test_recipes_are_those_named_in_the_guide_and_the_way_back() -> None:
    assert set(RECIPES) == {"default", "hf-constitutional-ai", "zephyr-qlora", "open-character-training", "tulu3-8b"}


def test_settings_are_the_published_ones() -> None:
    wanted = {
        "hf-constitutional-ai": {
            "method": "sft+dpo",
            "adapter": "none",
            "learning_rate": 5e-7,
            "beta": 0.1,
            "epochs": 3,
        },
        "zephyr-qlora": {"adapter": "qlora", "lora_r": 128, "lora_alpha": 128, "learning_rate": 5e-6, "beta": 0.01},
        "open-character-training": {
            "adapter": "lora",
            "lora_r": 64,
            "lora_alpha": 128,
            "learning_rate": 5e-5,
            "beta": 0.1,
            "nll_coefficient": 0.1,
            "batch_size": 32,
            "epochs": 1,
        },
        "tulu3-8b": {"method": "dpo-norm", "adapter": "none", "beta": 5, "learning_rate": 5e-7, "batch_size": 128},
    }
    assert set(wanted) == set(PUBLISHED)
    for name, values in wanted.items():
        assert values.items() <= recipe(name).model_dump().items(), name
    sft = recipe("hf-constitutional-ai").sft
    assert (sft.learning_rate, sft.epochs) == (2e-5, 1)


def test_all_set_the_same_keys_or_switching_would_leave_some_behind() -> None:
    keys = {name: set(use.file_values(name, ROOT / "conf/recipes")) for name in RECIPES}
    assert all(key.startswith("train.") for key in keys["default"])
    for name in PUBLISHED:
        assert keys[name] == keys["default"] | {"train.batch_size"}, name
    assert "train.batch_size" in use.scale_values("demo", ROOT / "conf/scales")


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_its_source(name: str) -> None:
    head = (ROOT / f"conf/recipes/{name}.yaml").read_text(encoding="utf-8").partition("\n\n")[0]
    assert re.search(r"Source: .*(arXiv \d{4}\.\d{5}|github\.com/)", head)


@pytest.mark.parametrize("name", PUBLISHED)
def test_there_and_back_is_byte_identical(name: str) -> None:
    before = Path("params.yaml").read_bytes()
    done = command("--recipe", name)
    assert done.returncode == 0, done.stderr
    text = Path("params.yaml").read_text(encoding="utf-8")
    assert params.load(Path("params.yaml")).train == recipe(name)
    assert comments(text) == comments(SHIPPED)
    assert command("demo", "--recipe", "default").returncode == 0
    assert Path("params.yaml").read_bytes() == before


def test_list_marks_the_recipe_whose_values_are_set_and_none_after_a_change() -> None:
    assert "* default " in command().stdout
    assert command("poc", "--recipe", "tulu3-8b").returncode == 0  # the recipe's batch, not the scale's
    listing = command().stdout
    assert "* tulu3-8b " in listing
    assert "  default " in listing
    Path("params.yaml").write_text(Path("params.yaml").read_text(encoding="utf-8").replace("beta: 5 ", "beta: 4 "))
    assert "* tulu3-8b " not in command().stdout


def test_unknown_recipe_is_one_line() -> None:
    done = command("--recipe", "zephir")
    assert done.returncode == 2
    assert done.stderr.startswith("error: conf/recipes/zephir.yaml: no such recipe; there are default, hf-const")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", PUBLISHED)
def test_trains_two_steps(name: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The train stage, on two batches of pairs; more where one half is for SFT and the other for DPO, by hash."""
    (tmp_path / "stage").mkdir()
    monkeypatch.chdir(tmp_path / "stage")
    settings = recipe(name).model_copy(update={"epochs": 1, "max_length": 128})
    phases = settings.method.split("+")
    trained.project(tiny_model, settings.model_dump())
    trained.write_pairs(settings.batch_size * (4 if len(phases) > 1 else 2), validation=4)
    trained.run()
    metrics = json.loads(Path("metrics/train.json").read_text())
    assert metrics["effective_batch"] == settings.batch_size
    steps = pandas.read_csv("metrics/plots/train.csv").groupby("phase").size()
    assert set(steps.index) == set(phases)
    assert steps.min() >= 2
    assert list(trained.ADAPTER.glob("*.safetensors"))
