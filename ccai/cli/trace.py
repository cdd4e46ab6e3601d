"""TODO."""

from __future__ import annotations

import argparse
import textwrap

from ccai.base.errors import run
from ccai.base.terminal import NOTICE, block, terminal_width
from ccai.report.trace import trace


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m ccai.trace", description="Where something comes from.")
    parser.add_argument(
        "id",
        metavar="ID",
        help="a pair or prompt: its id or the beginning of it; an answer: PROMPT/base or PROMPT/tuned;"
        " a figure: FILE:KEY, such as metrics/eval.json:heldout.safety.declining",
    )
    options = parser.parse_args()
    parts = trace(options.id)
    width = terminal_width()
    print(textwrap.fill(NOTICE, width) + "\n")
    for part in parts:
        print(block(part.title, part.text, width))


if __name__ == "__main__":
    run(main)
