"""A training of a few pairs, in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conftest import CPU

from ccai.base.params import Sft, Train
from ccai.models.model import Model
from ccai.pairs import demonstrations
from ccai.train import run
from ccai.train.checkpoints import Stop
from ccai.train.run import Trained, TrainingData
from helpers.trained import pairs

PARAMS = Train(
    method="dpo",
    adapter="lora",
    learning_rate=5e-3,
    scheduler="linear",
    warmup_ratio=0.1,
    beta=0.1,
    nll_coefficient=0,
    epochs=2,
    sft=Sft(learning_rate=5e-3, epochs=1),
    batch_size=4,
    per_device=2,
    max_length=128,
    lora_r=4,
    lora_alpha=8,
    gradient_checkpointing="auto",
    precompute_reference="auto",
    processes=1,
    sharding="none",
)
VERSIONS = {"torch": "1", "trl": "2"}
TRAIN, VALIDATION = pairs(16, seed=1), pairs(6, seed=2)


def train(model: Model, target: Path, **changes: Any) -> Trained:
    """`pairs` and `validation` make the demonstrations, too."""
    pairs, validation = changes.pop("pairs", TRAIN), changes.pop("validation", VALIDATION)
    shown, held = ([demonstrations.of(pair, "test") for pair in side] for side in (pairs, validation))
    given: dict[str, Any] = {
        "placement": CPU,
        "data": TrainingData(pairs, validation, shown, held),
        "params": PARAMS,
        "seed": 7,
        "versions": VERSIONS,
        "stop": Stop(),
    }
    return run.train(model, **given | changes, target=target)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
