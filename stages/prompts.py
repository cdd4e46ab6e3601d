"""Choose the prompts and split them into train and eval.

python -m stages.prompts
"""

from __future__ import annotations

import sys
from pathlib import Path

from ccai.base import files, params
from ccai.base.errors import run
from ccai.prompts import evaluation_sets, select, sources

FOLDER = Path("data/prompts")
METRICS = Path("metrics/prompts.json")


def main() -> None:
    """Read the sources, choose, write both sides and the counts."""
    settings = params.load()
    rows = sources.load_all(settings.prompts.sources)
    evaluation = evaluation_sets.load(settings)
    for slip in select.slips(rows, settings.prompts):
        print(f"warning: {slip}", file=sys.stderr)
    chosen, counts = select.choose(rows, settings.prompts, settings.seed, evaluation)
    for side in ("train", "eval"):
        members = [prompt for prompt in chosen if prompt.split == side]
        files.write(FOLDER / f"{side}.jsonl", members)
        print(f"{side}: {len(members)} prompts in {FOLDER / side}.jsonl")
    files.write_json(METRICS, counts)
    print(
        f"{counts['read']} read, {counts['excluded']} excluded, {counts['filtered']} filtered,"
        f" {counts['exact_duplicates']} exact duplicates"
    )


if __name__ == "__main__":
    run(main, __doc__)
