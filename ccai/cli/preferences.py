"""Run the gates over a file of ready-made preference pairs.

Examples:

    ccai preferences my-pairs.jsonl            # how many of its pairs each gate drops
    ccai preferences hh-rlhf --list            # of a fetched source; and which, by line
"""

from __future__ import annotations

import argparse
from collections import Counter

from ccai.base import params
from ccai.pairs import build, gates, user_files
from ccai.pairs.ready_made import candidates


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    parser.add_argument("file", metavar="FILE", help=".jsonl or .jsonl.gz, or the name of a pinned source")
    parser.add_argument("--list", action="store_true", help="also name each pair that a gate takes, by line")


def main(options: argparse.Namespace) -> None:
    """Run it."""
    places = [row.where for row in user_files.rows(options.file)]
    fates, pairs = build.screen(candidates(options.file), params.load().pairs, 0, lambda some: [False] * len(some))
    if options.list:
        for place, fate in zip(places, fates, strict=True):
            if fate:
                print(f"{place}: {fate}")
    counts = Counter(fates)
    print(f"{options.file}: {len(pairs)} of {len(fates)} pairs pass the gates")
    for gate, meaning in gates.GATES.items():
        if counts[gate]:
            print(f"{counts[gate]:>8}  {gate:<18}  {meaning}")
    print("Not tried here: what needs a model (length in tokens, a judge) or the prompts held out for evaluation.")
