"""Trace a pair, a prompt, an answer or a figure back to the row of its source.

Examples:

    ccai trace 3f2a                               # a pair or a prompt, by its id or the beginning of it
    ccai trace 9bc0/tuned                         # an evaluated answer: prompt and arm
    ccai trace metrics/eval.json:heldout.safety.declining     # a figure: which answers it is made of
"""

from __future__ import annotations

import argparse
import textwrap

from ccai.base.terminal import NOTICE, block, terminal_width
from ccai.report.trace import trace


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    parser.add_argument(
        "id",
        metavar="ID",
        help="a pair or prompt: its id or the beginning of it; an answer: PROMPT/base or PROMPT/tuned;"
        " a figure: FILE:KEY, such as metrics/eval.json:heldout.safety.declining",
    )


def main(options: argparse.Namespace) -> None:
    """Run it."""
    parts = trace(options.id)
    width = terminal_width()
    print(textwrap.fill(NOTICE, width) + "\n")
    for part in parts:
        print(block(part.title, part.text, width))
