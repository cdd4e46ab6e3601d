"""Choose the prompts and split them into train and eval.

python -m stages.prompts
"""

from __future__ import annotations

import sys
from pathlib import Path

from ccai import params, prompts, records, sources
from ccai.errors import run

FOLDER = Path("data/prompts")
METRICS = Path("metrics/prompts.json")


def main() -> None:
    """Read the sources, choose, write both sides and the counts."""
    settings = params.load()
    rows = sources.load_all(settings.prompts.sources)
    evaluation = sources.load_all(settings.prompts.evaluation_sets)
    for slip in prompts.slips(rows, settings.prompts):
        print(f"warning: {slip}", file=sys.stderr)
    chosen, counts = prompts.choose(rows, settings.prompts, settings.seed, evaluation)
    for side in ("train", "eval"):
        there = [prompt for prompt in chosen if prompt.split == side]
        records.write(FOLDER / f"{side}.jsonl", there)
        print(f"{side}: {len(there)} prompts in {FOLDER / side}.jsonl")
    records.write_json(METRICS, counts)
    print(
        f"{counts['read']} read, {counts['excluded']} excluded, {counts['filtered']} filtered,"
        f" {counts['exact_duplicates']} exact duplicates"
    )


if __name__ == "__main__":
    run(main, __doc__)
