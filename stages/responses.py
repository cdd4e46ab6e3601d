"""Answer the training prompts.

python -m stages.responses
"""

from __future__ import annotations

from pathlib import Path

from ccai import conversation, generation, params, records, runtime, versions
from ccai.errors import run

PROMPTS = Path("data/prompts/train.jsonl")
OUT = Path("data/responses.jsonl")
METRICS = Path("metrics/responses.json")


def main() -> None:
    """One answer for each prompt."""
    settings, stopwatch = params.load(), runtime.Stopwatch()
    versions.check("torch", "transformers")
    prompts = records.read(PROMPTS, records.Prompt)
    engine = generation.load_engine(settings.models.answer, settings.hardware)
    jobs = [
        generation.Job(
            ("answer", prompt.prompt_id),
            conversation.to_answer(settings.responses.system, prompt.text),
            settings.responses.max_new_tokens,
        )
        for prompt in prompts
    ]
    result = generation.complete("responses", engine, jobs, settings.generation, settings.seed)
    responses = [
        records.Response(prompt_id=prompt.prompt_id, **fields)
        for prompt, fields in zip(prompts, result.completions, strict=True)
    ]
    records.write(OUT, responses)
    records.write_json(METRICS, generation.metrics(responses, engine, settings.seed))
    runtime.write("responses", stopwatch, **result.runtime)


if __name__ == "__main__":
    run(main, __doc__)
