"""Compare two files of scores of the same items: is B higher than A, and how sure is that?

ccai compare A.jsonl B.jsonl --key prompt_id --score safety_score --by hazard
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ccai.base.errors import UserError
from ccai.stats.compare import compare


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    parser.add_argument("a", type=Path)
    parser.add_argument("b", type=Path)
    parser.add_argument("--key", action="append", required=True, help="field that names an item; may be repeated")
    parser.add_argument("--score", required=True, help="field with the score; dots lead into objects")
    parser.add_argument("--cluster", help="field whose items are not independent, such as prompt_id")
    parser.add_argument("--by", help="field to compare in groups as well, with Holm's correction")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")
    parser.add_argument("--resamples", type=int, default=10_000, help="of the bootstrap (default: %(default)s)")


def main(options: argparse.Namespace) -> None:
    """Run it."""
    if options.seed < 0 or options.resamples < 100:
        raise UserError("--seed must be at least 0 and --resamples at least 100; correct them")
    found = compare(**vars(options))
    print(json.dumps(found, indent=2, allow_nan=False))
