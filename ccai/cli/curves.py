"""Write the training curves of one run, or of several laid over each other, as a page.

Examples:

    ccai curves show                          # the run in this folder
    ccai curves diff                          # the last commit and the run in this folder
    ccai curves diff main another-branch --open
"""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from ccai.base.errors import UserError
from ccai.base.files import write_text
from ccai.report.curves import FOLDER, comparison


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    parser.add_argument("command", choices=("show", "diff"), help="one revision's, or several laid over each other")
    parser.add_argument("revisions", nargs="*", metavar="REV", help="what lies here if none is named")
    parser.add_argument("-o", "--out", type=Path, default=FOLDER, metavar="FOLDER", help=f"for the page ({FOLDER})")
    parser.add_argument("--open", action="store_true", help="open it in a browser")


def main(options: argparse.Namespace) -> None:
    """Run it."""
    revisions: list[str | None] = list(options.revisions)
    if options.command == "show" and len(revisions) > 1:
        raise UserError("show takes one revision; diff lays several over each other")
    if options.command == "diff" and len(revisions) < 2:  # as `dvc plots diff` does
        revisions = [*(revisions or ["HEAD"]), None]
    path = options.out / "index.html"
    write_text(path, comparison(revisions or [None]))
    print(path)
    if options.open:
        webbrowser.open(path.resolve().as_uri())
