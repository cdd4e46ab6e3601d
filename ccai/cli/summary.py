"""Print what the last run did, on one screen.

Examples:

    ccai summary
"""

from __future__ import annotations

import argparse

from ccai.report import run_files
from ccai.report.summary import METRICS, text


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""


def main(options: argparse.Namespace) -> None:
    """Run it."""
    if origin := run_files.origin():
        print(f"{METRICS / 'eval.json'}: {origin}\n")
    print(text())
