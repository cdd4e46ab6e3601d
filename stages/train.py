"""Train the model on the preference pairs, the demonstrations made of them, or both.

python -m stages.train
"""

from __future__ import annotations

from pathlib import Path

import pandas

from ccai.base import files, params, records, timing, versions
from ccai.base.errors import run
from ccai.models import find
from ccai.train import model_card
from ccai.train.checkpoints import Stop
from ccai.train.run import TrainingData, placed, train

PAIRS = Path("data/pairs")
HELD_OUT = Path("data/prompts/eval.jsonl")
ADAPTER = Path("models/adapter")
METRICS = Path("metrics/train.json")
CURVE = Path("metrics/plots/train.csv")


def main() -> None:
    """Train, then write what was trained, numbers and curve."""
    settings, stopwatch = params.load(), timing.Stopwatch()
    pinned = versions.check("torch", "transformers", "trl", "peft")
    data = TrainingData(
        files.read(PAIRS / "train.jsonl", records.Pair),
        files.read(PAIRS / "validation.jsonl", records.Pair),
        files.read(PAIRS / "sft/train.jsonl", records.Demonstration),
        files.read(PAIRS / "sft/validation.jsonl", records.Demonstration),
    )
    data.refuse_held_out(files.read(HELD_OUT, records.Prompt))
    model = find.find(settings.models.train)
    placement = placed(model, settings.hardware, settings.train)
    print(f"model: {placement.reason}", flush=True)
    with Stop() as stop:
        done = train(model, placement, data, settings.train, settings.seed, pinned, ADAPTER, stop)
    if done.reused:
        print(
            "train: finished before with the same data, weights and parameters; taken from the cache",
            flush=True,
        )
    files.write_json(METRICS, {"model": model.name, "revision": model.revision, "seed": settings.seed, **done.metrics})
    files.write_text(CURVE, pandas.DataFrame(done.curve).to_csv(index=False, lineterminator="\n"))
    model_card.write(ADAPTER, model, settings.train, settings.seed, PAIRS, pinned, done.metrics)
    timing.write(
        "train",
        stopwatch,
        reused=done.reused,
        device=placement.device,
        dtype=placement.dtype,
        quantization=placement.quantization,
        placement=placement.reason,
    )


if __name__ == "__main__":
    run(main, __doc__)
