"""Tokens are those that training counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.gates import pair
from transformers import AutoTokenizer

from ccai.pairs import lengths
from ccai.train import run

TEXTS = ["Yes.", "今晚和你信任的人谈谈吧。", "Then the washer is worn; a new one costs little. " * 8, "🙂" * 30]


@pytest.mark.parametrize("text", TEXTS)
def test_over_length_is_what_training_counts(tiny_model: Path, text: str) -> None:
    counter = lengths.Tokens(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for one in (pair(text), pair("No.", text)):
        count = run._tokens(tokenizer, one)
        assert counter.over([one, pair("Yes.", "No.", "Why?"), one], count) == [False] * 3
        assert counter.over([one, one], count - 1) == [True] * 2
    assert counter.text(text) == len(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_none_of_none(tiny_model: Path) -> None:
    assert lengths.Tokens(tiny_model).over([], 8) == []
