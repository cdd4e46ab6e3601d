"""Answer the training prompts.

python -m stages.responses
"""

from __future__ import annotations

from pathlib import Path

from ccai.base import files, params, records, timing, versions
from ccai.base.errors import run
from ccai.constitution import dialogue
from ccai.generate import completions

PROMPTS = Path("data/prompts/train.jsonl")
OUT = Path("data/responses.jsonl")
METRICS = Path("metrics/responses.json")


def main() -> None:
    """One answer for each prompt."""
    settings, stopwatch = params.load(), timing.Stopwatch()
    versions.check("torch", "transformers")
    prompts = files.read(PROMPTS, records.Prompt)
    engine = completions.load_engine(settings.models.answer, settings.hardware)
    jobs = [
        completions.Job(
            ("answer", prompt.prompt_id),
            dialogue.to_answer(settings.responses.system, prompt.text),
            settings.responses.max_new_tokens,
        )
        for prompt in prompts
    ]
    result = completions.complete("responses", engine, jobs, settings.generation, settings.seed)
    responses = [
        records.Response(prompt_id=prompt.prompt_id, **fields)
        for prompt, fields in zip(prompts, result.completions, strict=True)
    ]
    files.write(OUT, responses)
    files.write_json(METRICS, completions.metrics(responses, engine, settings.seed))
    timing.write("responses", stopwatch, **result.runtime)


if __name__ == "__main__":
    run(main, __doc__)
