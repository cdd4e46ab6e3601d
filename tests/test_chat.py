from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, save_model
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from ccai import cli
from ccai.base import params
from ccai.base.errors import UserError
from ccai.cli import chat


@pytest.fixture(autouse=True)
def project(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with params.yaml set to a tiny model in `tiny`, as the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ccai", "chat"])
    shutil.copytree(ROOT / "conf", "conf")
    shutil.copytree(tiny_model, "tiny")
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["models"]["train"] = "tiny"
    values["responses"] |= {"max_new_tokens": 8, "system": "Be brief."}
    values["hardware"] |= {"device": "cpu", "dtype": "float32", "quantization": "none"}
    Path("params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


def adapter(width: int) -> None:
    """An adapter whose effect is not zero, for a model of that width."""
    tuned = get_peft_model(save_model(Path("other"), width), LoraConfig(target_modules=["q_proj", "v_proj", "o_proj"]))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=3.0)
    tuned.save_pretrained(chat.ADAPTER)


def answers(question: str, system: str = "") -> dict[str, str]:
    settings = params.load()
    engines = chat.load(settings, chat.ADAPTER if chat.ADAPTER.exists() else None)
    return dict(chat.ask(engines, question, system, settings))


def test_with_nothing_trained_says_so_and_the_base_answers() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ccai", "chat", "How are you?"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "nothing trained in models/adapter: only the base answers; train (dvc repro)" in done.stdout
    assert "Some of this text is harmful" in done.stdout
    assert "\n  base\n    " in done.stdout
    assert "tuned" not in done.stdout


def test_with_adapter_both_answer_and_the_base_as_without_it() -> None:
    alone = answers("How are you?")
    adapter(64)
    both = answers("How are you?")
    assert list(both) == ["base", "tuned"]
    assert both["base"] == alone["base"] != both["tuned"]
    assert answers("How are you?") == both


def test_arms_draw_with_the_same_seed() -> None:
    """An adapter that changes nothing answers as the base does."""
    adapter(64)
    weights = load_file(chat.ADAPTER / "adapter_model.safetensors")
    still = {name: torch.zeros_like(weight) if "lora_B" in name else weight for name, weight in weights.items()}
    save_file(still, chat.ADAPTER / "adapter_model.safetensors")
    for question in ("How are you?", "And you?"):
        both = answers(question)
        assert both["base"] == both["tuned"]


def test_whole_model_answers_as_tuned(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As train.adapter: none leaves one, without an adapter."""
    alone = answers("How are you?")
    save_model(chat.ADAPTER, seed=1)
    both = answers("How are you?")
    assert list(both) == ["base", "tuned"]
    assert both["base"] == alone["base"] != both["tuned"]
    monkeypatch.setattr(sys, "argv", ["ccai", "chat", "How are you?"])
    cli.main()
    said = capsys.readouterr().out
    assert "nothing trained" not in said
    assert "\n  base\n    " in said
    assert "\n  tuned\n    " in said


def test_system_message_is_asked_under() -> None:
    assert answers("How are you?", "Be brief.") != answers("How are you?", "")


def test_questions_line_by_line_until_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("First?\n\nSecond?\n"))
    cli.main()
    assert len(re.findall(r"^  base$", capsys.readouterr().out, re.MULTILINE)) == 2


def test_adapter_of_another_model_is_one_line() -> None:
    adapter(32)
    with pytest.raises(UserError, match=r"^models/adapter: "):
        answers("How are you?")
