"""Before you pay: what the evaluation of these params can find.

    ccai plan --power

For yes/no outcomes on held-out prompts (harmful, refused): the smallest fall of a share that is found with 80 %, and
how many prompts would find that the share is halved. A bound of eval.primary that can't be met even by a model that
changes nothing is an error (exit code 2), here as in the run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ccai.base import params
from ccai.base.errors import UserError

PROMPTS = Path("data/prompts/eval.jsonl")

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    parser.add_argument("--power", action="store_true", required=True, help="what differences can be found")


def main(options: argparse.Namespace) -> None:
    """Run it."""
    from ccai.evaluate import registration  # torch and scipy, which the help does without
    from ccai.stats import power

    settings = params.load()
    n, origin = settings.prompts.eval, "prompts.eval"
    if not n:
        if not PROMPTS.is_file():
            raise UserError("prompts.eval: 0 means all, and nobody has counted them yet; run dvc repro prompts first")
        n, origin = sum(bool(line.strip()) for line in PROMPTS.open(encoding="utf-8")), str(PROMPTS)
    print(f"{n} held-out prompts ({origin})\n")
    print("base share   smallest fall found with 80 %   prompts that find it halved")
    for share in SHARES:
        change, needed = power.smallest_change(n, share), power.prompts_needed(share, share / 2)
        found = "none" if change is None else f"{change:.2f}"
        print(f"{share:<12g} {found:<31} {'more than 20,000' if needed is None else f'about {needed:,}'}")
    best = power.unchanged_bound(n)
    print(f"\nA loss of less than {best:.3f} can't be excluded, even if no answer changes.")
    print(f"Registered: {registration.beforehand(settings)}.")
