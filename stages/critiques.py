"""Criticise each answer by the principles of the constitution, in one or more rounds.

python -m stages.critiques
"""

from __future__ import annotations

from pathlib import Path

from ccai.base import files, params, records, timing, versions
from ccai.base.errors import run
from ccai.generate import completions, critique_revise

PROMPTS = Path("data/prompts/train.jsonl")
RESPONSES = Path("data/responses.jsonl")
OUT = Path("data/critiques.jsonl")
METRICS = Path("metrics/critiques.json")


def main() -> None:
    """One critique for each answer, principle and round; revisions between rounds are left in the journal."""
    settings, stopwatch = params.load(), timing.Stopwatch()
    versions.check("torch", "transformers")
    prompts = files.read(PROMPTS, records.Prompt)
    responses = files.read(RESPONSES, records.Response)
    critique_params = settings.critiques
    method = critique_revise.load(
        prompts, critique_params.constitution, critique_params.format, critique_params.examples
    )
    if settings.models.answer != settings.models.train:
        print("warning: models.answer is not models.train: the rejected answers are off-policy", flush=True)
    engine = completions.load_engine(settings.models.revise, settings.hardware)
    complete = critique_revise.Completer(engine, settings.generation, settings.seed)
    critiques = critique_revise.criticise(
        method, responses, critique_params, settings.revisions.max_new_tokens, settings.seed, complete
    )
    files.write(OUT, critiques)
    files.write_json(METRICS, completions.metrics(critiques, engine, settings.seed))
    timing.write("critiques", stopwatch, **complete.runtime)


if __name__ == "__main__":
    run(main, __doc__)
