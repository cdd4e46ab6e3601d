"""Write the report of a run as one HTML page.

Examples:

    ccai report                 # of the run in this folder: metrics/report.html and metrics/runtime/report.html
    ccai report REV_A REV_B     # two commits, branches or experiments side by side: metrics/compare.html
"""

from __future__ import annotations

import argparse

from ccai.base.errors import UserError
from ccai.base.files import write_text
from ccai.report import run_files
from ccai.report.page import COMPARED, comparison, write_at_hand


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    parser.add_argument("revisions", nargs="*", metavar="REV", help="two commits, branches, tags or experiments")


def main(options: argparse.Namespace) -> None:
    """Run it."""
    revisions = options.revisions
    if len(revisions) not in (0, 2):
        raise UserError("name two revisions, or none for the run that lies here")
    if revisions:
        write_text(COMPARED, comparison(*map(run_files.at, revisions)))
        print(COMPARED)
    else:
        write_at_hand()
