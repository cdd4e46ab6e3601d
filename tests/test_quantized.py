"""Weights are held as the placement says: in NF4 for 4 bit (arXiv 2305.14314), in LLM.int8 for 8 (arXiv 2208.07339)."""

from __future__ import annotations

from pathlib import Path

import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from conftest import CPU, as_model

from ccai.models import load


def test_four_bits_are_nf4_and_computed_in_the_dtype(tiny_model: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        model = load.weights(as_model(tiny_model), CPU._replace(quantization="4bit", dtype=dtype))
        layers = [layer for layer in model.modules() if isinstance(layer, Linear4bit)]
        assert len(layers) == 14, "all linear layers of both blocks, not the head"
        assert {layer.weight.quant_type for layer in layers} == {"nf4"}
        assert {layer.compute_dtype for layer in layers} == {getattr(torch, dtype)}


def test_eight_bits_are_eight(tiny_model: Path) -> None:
    model = load.weights(as_model(tiny_model), CPU._replace(quantization="8bit"))
    assert sum(isinstance(layer, Linear8bitLt) for layer in model.modules()) == 14


def test_whole_weights_have_the_dtype(tiny_model: Path) -> None:
    for dtype in ("float32", "bfloat16", "float16"):
        model = load.weights(as_model(tiny_model), CPU._replace(dtype=dtype))
        assert {weight.dtype for weight in model.parameters()} == {getattr(torch, dtype)}
