"""Is B better than A? Of two runs, or of two files of scores of the same items.

    ccai compare HEAD~1 HEAD                                    # two runs: commits, tags, branches, experiments
    ccai compare main .                                         # . is the run in this folder
    ccai compare A.jsonl B.jsonl --key prompt_id --score safety_score --by hazard

Two runs: the tuned model of B against that of A, on the prompts that both answered, by the aims that B registered
(eval.primary in params.yaml). Answers that are not in the DVC cache are fetched from the default remote.

Two files: each line is a JSON object with a key that occurs once in the file and a score: a number, true or false, or
null where there is none.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ccai.base.errors import UserError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    parser.add_argument("a", metavar="A", help="a run, or a file of scores")
    parser.add_argument("b", metavar="B", help="another")
    parser.add_argument("--json", action="store_true", help="for programs; the answer is under verdict")
    files = parser.add_argument_group("two files of scores")
    files.add_argument("--key", action="append", help="field that names an item; may be repeated")
    files.add_argument("--score", help="field with the score; dots lead into objects")
    files.add_argument("--cluster", help="field whose items are not independent, such as prompt_id")
    files.add_argument("--by", help="field to compare in groups as well, with Holm's correction")
    files.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")
    files.add_argument("--resamples", type=int, default=10_000, help="of the bootstrap (default: %(default)s)")


def main(options: argparse.Namespace) -> None:
    """Run it."""
    if options.key or options.score:
        comparison, words = _files(options)
    elif options.cluster or options.by or Path(options.a).is_file() or Path(options.b).is_file():
        raise UserError("two files of scores are compared by --key FIELD --score FIELD; name both")
    else:
        comparison, words = _runs(options)
    print(json.dumps(comparison, indent=2, allow_nan=False) if options.json else words)


def _files(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from ccai.stats.compare import compare, words

    if not (options.key and options.score):
        raise UserError("two files of scores are compared by --key FIELD --score FIELD; name both")
    if options.seed < 0 or options.resamples < 100:
        raise UserError("--seed must be at least 0 and --resamples at least 100; correct them")
    comparison = compare(
        Path(options.a),
        Path(options.b),
        options.key,
        options.score,
        cluster=options.cluster,
        by=options.by,
        seed=options.seed,
        resamples=options.resamples,
    )
    return comparison, words(comparison)


def _runs(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from ccai.report import two_runs

    comparison = two_runs.compare(options.a, options.b)
    return comparison, two_runs.text(comparison)
