"""Turn answers and revisions into preference pairs; keep those that pass the gates.

python -m stages.pairs
"""

from __future__ import annotations

from pathlib import Path

from ccai import pairs, params, records
from ccai.errors import run

PROMPTS = Path("data/prompts/train.jsonl")
RESPONSES = Path("data/responses.jsonl")
REVISIONS = Path("data/revisions.jsonl")
OUT = Path("data/pairs")
METRICS = Path("metrics/pairs.json")


def main() -> None:
    """Build, then write train, validation and dropped pairs."""
    settings = params.load()
    built = pairs.build(
        records.read(PROMPTS, records.Prompt),
        records.read(RESPONSES, records.Response),
        records.read(REVISIONS, records.Revision),
        settings.pairs,
        settings.responses.system,
        settings.seed,
    )
    records.write(OUT / "train.jsonl", built.train)
    records.write(OUT / "validation.jsonl", built.validation)
    records.write(OUT / "dropped.jsonl", built.dropped)
    counts = pairs.summary(built)
    records.write_json(METRICS, {"seed": settings.seed, **counts})
    print(f"pairs: {counts['kept']} kept ({counts['train']} train, {counts['validation']} validation)")
    print("pairs: dropped: " + ", ".join(f"{gate} {n}" for gate, n in counts["dropped_by"].items()))


if __name__ == "__main__":
    run(main)
