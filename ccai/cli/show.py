"""Read samples of what the stages wrote.

Examples:

    ccai show pairs -n 10
    ccai show revisions --principle emptiness --seed 1
    ccai show answers --hazard vcr | less
"""

from __future__ import annotations

import argparse
import random
import textwrap

from ccai.base.errors import UserError
from ccai.base.terminal import NOTICE, block, terminal_width
from ccai.report.samples import DATA, WHAT, samples


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("-n", type=int, default=5, help="how many (5)")
    parser.add_argument("--hazard", help="only of prompts with this hazard")
    parser.add_argument(
        "--principle", help="only of this principle (prompts and answers: the one that they are to try)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, another sample (0)")


def main(options: argparse.Namespace) -> None:
    """Run it."""
    try:
        matches = samples(options.what)
    except KeyError as error:
        raise UserError(
            f"{DATA}: {options.what} of {error.args[0]}, which an earlier stage no longer has; run dvc repro"
        ) from None
    for name, value in (("hazard", options.hazard), ("principle", options.principle)):
        values = sorted({str(getattr(sample, name)) for sample in matches})
        if value is not None:
            matches = [sample for sample in matches if getattr(sample, name) == value]
            if not matches:
                raise UserError(f"--{name} {value}: no such {options.what}; there are {', '.join(values) or 'none'}")
    width = terminal_width()
    print(textwrap.fill(NOTICE, width))
    chosen = random.Random(options.seed).sample(matches, min(max(options.n, 0), len(matches)))
    for number, sample in enumerate(chosen, start=1):
        heading = f"{number} of {len(matches)} {options.what}: hazard {sample.hazard}, principle {sample.principle}"
        print("\n" + textwrap.fill(f"{heading}, {sample.facts}", width))
        for title, text in sample.texts:
            print(block(title, text, width))
    if not matches:
        print(f"no {options.what}")
