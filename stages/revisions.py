"""Revise each answer after each critique.

python -m stages.revisions
"""

from __future__ import annotations

from pathlib import Path

from ccai import constitution, conversation, generation, params, records, runtime, versions
from ccai.errors import run

PROMPTS = Path("data/prompts/train.jsonl")
RESPONSES = Path("data/responses.jsonl")
CRITIQUES = Path("data/critiques.jsonl")
OUT = Path("data/revisions.jsonl")
METRICS = Path("metrics/revisions.json")


def main() -> None:
    """One revision for each critique."""
    settings, stopwatch = params.load(), runtime.Stopwatch()
    versions.check("torch", "transformers")
    prompts = {prompt.prompt_id: prompt for prompt in records.read(PROMPTS, records.Prompt)}
    responses = {response.prompt_id: response for response in records.read(RESPONSES, records.Response)}
    critiques = records.read(CRITIQUES, records.Critique)
    principles = {p.slug: p for p in constitution.load(settings.critiques.constitution).principles}
    format = conversation.load_format(settings.critiques.format)
    engine = generation.load_engine(settings.models.revise, settings.hardware)
    jobs = [
        generation.Job(
            ("revision", critique.prompt_id, critique.principle, str(critique.round)),
            conversation.to_revise(
                format,
                principles[critique.principle],
                settings.critiques.examples,
                prompts[critique.prompt_id].text,
                responses[critique.prompt_id].text,
                critique.text,
            ),
            settings.revisions.max_new_tokens,
        )
        for critique in critiques
    ]
    result = generation.complete("revisions", engine, jobs, settings.generation, settings.seed)
    revisions = [
        records.Revision(
            prompt_id=critique.prompt_id,
            principle=critique.principle,
            round=critique.round,
            principle_sha256=critique.principle_sha256,
            **fields,
        )
        for critique, fields in zip(critiques, result.completions, strict=True)
    ]
    records.write(OUT, revisions)
    records.write_json(METRICS, generation.metrics(revisions, engine, settings.seed))
    runtime.write("revisions", stopwatch, **result.runtime)


if __name__ == "__main__":
    run(main)
