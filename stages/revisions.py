"""Revise each answer after each critique.

python -m stages.revisions
"""

from __future__ import annotations

from pathlib import Path

from ccai.base import files, params, records, timing, versions
from ccai.base.errors import run
from ccai.generate import completions, critique_revise

PROMPTS = Path("data/prompts/train.jsonl")
RESPONSES = Path("data/responses.jsonl")
CRITIQUES = Path("data/critiques.jsonl")
OUT = Path("data/revisions.jsonl")
METRICS = Path("metrics/revisions.json")


def main() -> None:
    """One revision for each critique; those of all rounds but the last are found in the journal."""
    settings, stopwatch = params.load(), timing.Stopwatch()
    versions.check("torch", "transformers")
    prompts = files.read(PROMPTS, records.Prompt)
    responses = files.read(RESPONSES, records.Response)
    critiques = files.read(CRITIQUES, records.Critique)
    method = critique_revise.load(
        prompts, settings.critiques.constitution, settings.critiques.format, settings.critiques.examples
    )
    engine = completions.load_engine(settings.models.revise, settings.hardware)
    complete = critique_revise.Completer(engine, settings.generation, settings.seed)
    revisions = critique_revise.revise(method, responses, critiques, settings.revisions.max_new_tokens, complete)
    files.write(OUT, revisions)
    files.write_json(METRICS, completions.metrics(revisions, engine, settings.seed))
    timing.write("revisions", stopwatch, **complete.runtime)


if __name__ == "__main__":
    run(main, __doc__)
