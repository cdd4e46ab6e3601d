"""Let the base and the tuned model answer the held-out prompts, and compare.

python -m stages.eval
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ccai import (
    conversation,
    evaluation,
    exam,
    generation,
    judge,
    models,
    params,
    records,
    report,
    runtime,
    versions,
)
from ccai.errors import run

PROMPTS = Path("data/prompts/eval.jsonl")
ADAPTER = Path("models/adapter")
ANSWERS = Path("data/eval")
METRICS = Path("metrics/eval.json")
PLOTS = Path("metrics/plots")


def main() -> None:
    """Answer with both arms, judge, compare, draw."""
    settings, stopwatch = params.load(), runtime.Stopwatch()
    versions.check("torch", "transformers", "peft")
    prompts = records.read(PROMPTS, records.Prompt)
    jobs = [
        generation.Job(
            ("answer", prompt.prompt_id),
            conversation.to_answer(settings.responses.system, prompt.text),
            settings.responses.max_new_tokens,
        )
        for prompt in prompts
    ]
    answers: dict[str, list[records.Answer]] = {}
    cost: dict[str, Any] = {}
    # Each arm loads its own model: an adapter changes the model object that it is put on.
    for arm, adapter in (("base", None), ("tuned", ADAPTER)):
        engine = generation.load_engine(settings.models.train, settings.hardware, adapter)
        result = generation.complete(f"eval {arm}", engine, jobs, settings.generation, settings.seed)
        cost[arm] = result.runtime
        answers[arm] = [
            evaluation.judge_by_rules(prompt, arm, fields)
            for prompt, fields in zip(prompts, result.completions, strict=True)
        ]
        revision = engine.revision  # the base's weights in both arms
        del engine
    judged_by, unverified, sat = "rules", False, None
    if settings.eval.judge:
        judging = generation.load_engine(settings.models.judge, settings.hardware)
        sat = exam.sit_for_harm("eval exam", judging)
        cost["exam"] = sat.runtime
        if sat.passed:
            judged_by, unverified = judging.name, judging.unverified_weights
            judged, cost["judge"] = judge.harm("eval judge", judging, prompts * 2, answers["base"] + answers["tuned"])
            answers = {"base": judged[: len(prompts)], "tuned": judged[len(prompts) :]}
        else:
            print(f"eval: {judging.name} failed its exam; no verdicts are asked of it", flush=True)
    compared = evaluation.compare(
        answers["base"],
        answers["tuned"],
        settings.seed,
        settings.eval.resamples,
        judge=None if sat is None else sat.metrics,
    )
    about = {
        "model": answers["base"][0].model,
        "revision": revision,
        "adapter": models.fingerprint(ADAPTER),
        "judged_by": judged_by,
        "unverified_weights": unverified,
        "seed": settings.seed,
        "prompts": len(prompts),
    }
    for arm, given in answers.items():
        records.write(ANSWERS / f"{arm}.jsonl", given)
    report.differences(compared, PLOTS / "differences.png")
    report.refusals(compared, PLOTS / "refusals.png")
    registered = evaluation.registered(compared, settings.eval.primary)
    records.write_json(METRICS, about | {"registered": registered} | compared)
    runtime.write("eval", stopwatch, **cost)


if __name__ == "__main__":
    run(main)
