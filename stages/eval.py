"""Ask base, tuned model and the other arms what each suite asks, and compare their answers.

python -m stages.eval
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ccai.base import files, params, timing, versions
from ccai.base.errors import run
from ccai.evaluate import registration
from ccai.evaluate.comparison import registered
from ccai.evaluate.run import SUITES, ask, let_judge, measure
from ccai.models.files import fingerprint

ADAPTER = Path("models/adapter")
ANSWERS = Path("data/eval")
METRICS = Path("metrics/eval.json")


def main() -> None:
    """Ask, judge, compare."""
    settings, stopwatch = params.load(), timing.Stopwatch()
    versions.check("torch", "transformers", "peft", "lm_eval")
    suites = [kind(settings) for kind in SUITES if kind.name in settings.eval.suites]
    registration.check(settings.eval.primary, suites)
    cost: dict[str, Any] = {suite.name: {"seconds": 0.0} for suite in suites}
    answers, weights = ask(settings, suites, ADAPTER, cost)
    read = let_judge(settings, suites, answers, weights, cost)
    measured = measure(settings, suites, answers, read.passed, cost)
    for suite, by_arm in answers.items():
        for arm, records in by_arm.items():
            files.write(ANSWERS / suite / f"{arm}.jsonl", records)
    model, revision = next(iter(weights.items()))  # the base's
    about = {
        "model": model,
        "revision": revision,
        "adapter": fingerprint(ADAPTER),
        "judged_by": read.by,
        "unverified_weights": read.unverified_weights,
        "seed": settings.seed,
        "arms": settings.eval.labels,
    }
    verdicts = {"registered": registered(measured, settings.eval.primary)}
    files.write_json(METRICS, about | verdicts | measured | read.metrics)
    timing.write("eval", stopwatch, **cost)


if __name__ == "__main__":
    run(main, __doc__)
