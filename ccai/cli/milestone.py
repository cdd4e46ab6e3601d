"""Check the last run against the four conditions of a full run. Exit code 0 if all hold, else 1.

Examples:

    ccai milestone
"""

from __future__ import annotations

import argparse

from ccai.report.milestone import conditions


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""


def main(options: argparse.Namespace) -> None:
    """Run it."""
    results = conditions()
    for condition in results:
        print(f"{condition.verdict:<11} {condition.name}: {condition.figures}")
    if any(condition.verdict != "pass" for condition in results):
        raise SystemExit(1)
