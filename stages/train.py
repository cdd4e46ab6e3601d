"""Train a LoRA adapter on the preference pairs with DPO.

python -m stages.train
"""

from __future__ import annotations

from pathlib import Path

import pandas

from ccai import models, params, records, runtime, training, versions
from ccai.errors import run

PAIRS = Path("data/pairs/train.jsonl")
VALIDATION = Path("data/pairs/validation.jsonl")
ADAPTER = Path("models/adapter")
METRICS = Path("metrics/train.json")
CURVE = Path("metrics/plots/train.csv")


def main() -> None:
    """Train, then write adapter, numbers and curve."""
    settings, stopwatch = params.load(), runtime.Stopwatch()
    pinned = versions.check("torch", "transformers", "trl", "peft")
    pairs = records.read(PAIRS, records.Pair)
    validation = records.read(VALIDATION, records.Pair)
    model = models.find(settings.models.train)
    placement = models.place(model, settings.hardware)
    print(f"model: {placement.reason}", flush=True)
    done = training.train(model, placement, pairs, validation, settings.train, settings.seed, pinned, ADAPTER)
    if done.reused:
        print(
            "train: finished before with the same data, weights and parameters; taken from the cache",
            flush=True,
        )
    records.write_json(
        METRICS, {"model": model.name, "revision": model.revision, "seed": settings.seed, **done.metrics}
    )
    records.write_text(CURVE, pandas.DataFrame(done.curve).to_csv(index=False, lineterminator="\n"))
    runtime.write(
        "train",
        stopwatch,
        reused=done.reused,
        device=placement.device,
        dtype=placement.dtype,
        quantization=placement.quantization,
        placement=placement.reason,
    )


if __name__ == "__main__":
    run(main)
