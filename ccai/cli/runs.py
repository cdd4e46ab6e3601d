"""List all runs, commits of this branch and DVC experiments, with their verdicts; per evaluation set the best first.

    ccai runs
    ccai runs -n 5
    ccai runs --md > runs.md        # or --csv, with all figures

Commits and experiments with the same metrics/eval.json are one run. The time is known of the run in this folder alone.
"""

from __future__ import annotations

import argparse
import sys

from ccai.base.errors import UserError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--md", action="store_true", help="as a Markdown table")
    form.add_argument("--csv", action="store_true", help="as CSV, with all figures")
    parser.add_argument("-n", type=int, default=0, metavar="N", help="rows at most (default: all)")


def main(options: argparse.Namespace) -> None:
    """Run it."""
    from ccai.report import leaderboard

    if options.n < 0:
        raise UserError("-n must be at least 0; correct it")
    rows = leaderboard.rows()
    if options.csv:
        print(leaderboard.as_csv(rows, options.n))
        for note in leaderboard.notes(rows, options.n):
            print(note, file=sys.stderr)
    else:
        print((leaderboard.markdown if options.md else leaderboard.text)(rows, options.n))
