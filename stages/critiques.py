"""Criticise each answer by each principle of the constitution.

python -m stages.critiques
"""

from __future__ import annotations

from pathlib import Path

from ccai import constitution, conversation, generation, params, records, runtime, versions
from ccai.errors import run

PROMPTS = Path("data/prompts/train.jsonl")
RESPONSES = Path("data/responses.jsonl")
OUT = Path("data/critiques.jsonl")
METRICS = Path("metrics/critiques.json")


def main() -> None:
    """One critique for each answer and principle."""
    settings, stopwatch = params.load(), runtime.Stopwatch()
    versions.check("torch", "transformers")
    prompts = {prompt.prompt_id: prompt for prompt in records.read(PROMPTS, records.Prompt)}
    responses = records.read(RESPONSES, records.Response)
    principles = constitution.load(settings.critiques.constitution).principles
    format = conversation.load_format(settings.critiques.format)
    if settings.models.answer != settings.models.train:
        print("warning: models.answer is not models.train: the rejected answers are off-policy", flush=True)
    engine = generation.load_engine(settings.models.revise, settings.hardware)
    work = [(response, principle) for response in responses for principle in principles]
    jobs = [
        generation.Job(
            ("critique", response.prompt_id, principle.slug, "1"),
            conversation.to_criticise(
                format,
                principle,
                settings.critiques.examples,
                prompts[response.prompt_id].text,
                response.text,
            ),
            settings.critiques.max_new_tokens,
        )
        for response, principle in work
    ]
    result = generation.complete("critiques", engine, jobs, settings.generation, settings.seed)
    critiques = [
        records.Critique(
            prompt_id=response.prompt_id,
            principle=principle.slug,
            round=1,
            principle_sha256=principle.sha256,
            **fields,
        )
        for (response, principle), fields in zip(work, result.completions, strict=True)
    ]
    records.write(OUT, critiques)
    records.write_json(METRICS, generation.metrics(critiques, engine, settings.seed))
    runtime.write("critiques", stopwatch, **result.runtime)


if __name__ == "__main__":
    run(main)
