"""TODO."""

from __future__ import annotations

import argparse

from ccai.base.errors import run
from ccai.base.files import write_text
from ccai.report import run_files
from ccai.report.page import COMPARED, comparison, write_at_hand


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m ccai.report", description="Write a run's report as one HTML page.")
    parser.add_argument("revisions", nargs="*", metavar="REV", help="two commits, branches, tags or experiments")
    revisions = parser.parse_args().revisions
    if len(revisions) not in (0, 2):
        parser.error("name two revisions, or none for the run that lies here")
    if revisions:
        write_text(COMPARED, comparison(*map(run_files.at, revisions)))
        print(COMPARED)
    else:
        write_at_hand()


if __name__ == "__main__":
    run(main)
