"""Criticise each answer by the principles of the constitution, in one or more rounds.

python -m stages.critiques
"""

from __future__ import annotations

from pathlib import Path

from ccai import generation, params, records, rounds, runtime, versions
from ccai.errors import run

PROMPTS = Path("data/prompts/train.jsonl")
RESPONSES = Path("data/responses.jsonl")
OUT = Path("data/critiques.jsonl")
METRICS = Path("metrics/critiques.json")


def main() -> None:
    """One critique for each answer, principle and round; revisions between rounds are left in the journal."""
    settings, stopwatch = params.load(), runtime.Stopwatch()
    versions.check("torch", "transformers")
    prompts = records.read(PROMPTS, records.Prompt)
    responses = records.read(RESPONSES, records.Response)
    asked = settings.critiques
    method = rounds.load(prompts, asked.constitution, asked.format, asked.examples)
    if settings.models.answer != settings.models.train:
        print("warning: models.answer is not models.train: the rejected answers are off-policy", flush=True)
    engine = generation.load_engine(settings.models.revise, settings.hardware)
    complete = rounds.Completer(engine, settings.generation, settings.seed)
    critiques = rounds.criticise(method, responses, asked, settings.revisions.max_new_tokens, settings.seed, complete)
    records.write(OUT, critiques)
    records.write_json(METRICS, generation.metrics(critiques, engine, settings.seed))
    runtime.write("critiques", stopwatch, **complete.runtime)


if __name__ == "__main__":
    run(main, __doc__)
