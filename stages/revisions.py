"""Revise each answer after each critique.

python -m stages.revisions
"""

from __future__ import annotations

from pathlib import Path

from ccai import generation, params, records, rounds, runtime, versions
from ccai.errors import run

PROMPTS = Path("data/prompts/train.jsonl")
RESPONSES = Path("data/responses.jsonl")
CRITIQUES = Path("data/critiques.jsonl")
OUT = Path("data/revisions.jsonl")
METRICS = Path("metrics/revisions.json")


def main() -> None:
    """One revision for each critique; those of all rounds but the last are found in the journal."""
    settings, stopwatch = params.load(), runtime.Stopwatch()
    versions.check("torch", "transformers")
    prompts = records.read(PROMPTS, records.Prompt)
    responses = records.read(RESPONSES, records.Response)
    critiques = records.read(CRITIQUES, records.Critique)
    method = rounds.load(
        prompts, settings.critiques.constitution, settings.critiques.format, settings.critiques.examples
    )
    engine = generation.load_engine(settings.models.revise, settings.hardware)
    complete = rounds.Completer(engine, settings.generation, settings.seed)
    revisions = rounds.revise(method, responses, critiques, settings.revisions.max_new_tokens, complete)
    records.write(OUT, revisions)
    records.write_json(METRICS, generation.metrics(revisions, engine, settings.seed))
    runtime.write("revisions", stopwatch, **complete.runtime)


if __name__ == "__main__":
    run(main, __doc__)
