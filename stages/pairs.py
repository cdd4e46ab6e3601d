"""Turn answers and revisions into preference pairs; keep those that pass the gates.

python -m stages.pairs
"""

from __future__ import annotations

from pathlib import Path

from ccai.base import files, metrics_json, params, timing, versions
from ccai.base.errors import UserError, run
from ccai.base.records import Prompt, Response
from ccai.constitution import principles
from ccai.pairs import baseline, card
from ccai.pairs.run import Inputs, let_judge, violations, write
from ccai.prompts import evaluation_sets

PROMPTS = Path("data/prompts/train.jsonl")
HELD_OUT = Path("data/prompts/eval.jsonl")
RESPONSES = Path("data/responses.jsonl")
REVISIONS = Path("data/revisions.jsonl")
OUT = Path("data/pairs")
METRICS = Path("metrics/pairs.json")
GENERATED = {"rejected": Path("metrics/responses.json"), "chosen": Path("metrics/revisions.json")}


def main() -> None:
    """Judge, decide, then write pairs, SFT data and their card."""
    settings, stopwatch = params.load(), timing.Stopwatch()
    versions.check("torch", "transformers")
    constitution = principles.load(settings.critiques.constitution)
    prompts, responses = files.Index(PROMPTS, Prompt), files.Index(RESPONSES, Response)
    if odd := set(prompts) ^ set(responses):
        raise UserError(f"{RESPONSES}: not the answers to {PROMPTS}, such as to prompt_id {min(odd)}; run dvc repro")
    evaluation = [prompt.text for prompt in files.read(HELD_OUT, Prompt)]
    evaluation += [row.text for row in evaluation_sets.load(settings)]
    inputs = Inputs(prompts, responses, REVISIONS, constitution, evaluation)
    written_by = {role: metrics_json.read(path) for role, path in GENERATED.items()}
    judged = let_judge(settings, inputs, written_by)
    of_first_answers = baseline.measure(
        (prompt for prompt in files.each(PROMPTS, Prompt) if prompt.prompt_id in responses),
        files.each(RESPONSES, Response),
        None if judged.verdicts is None else violations(inputs, judged.verdicts),
    )
    counts = write(OUT, settings, inputs, judged.verdicts)
    metrics = {"seed": settings.seed, **counts, **judged.metrics, "baseline": of_first_answers}
    files.write_text(OUT / "README.md", card.text(metrics, constitution, written_by))
    files.write_json(METRICS, metrics)
    timing.write("pairs", stopwatch, **judged.cost)
    print(f"pairs: {counts['kept']} kept ({counts['train']} train, {counts['validation']} validation)")
    if reasons := ", ".join(f"{gate} {n}" for gate, n in counts["dropped_by"].items() if n):
        print(f"pairs: dropped: {reasons}")


if __name__ == "__main__":
    run(main, __doc__)
