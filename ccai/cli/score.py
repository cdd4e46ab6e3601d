"""Score answers in a file: refusal class, rule scores and, if asked for, a judge's verdict on harm.

Examples:

    ccai score answers.jsonl --out scored.jsonl
    ccai score answers.jsonl --out scored.jsonl --judge qwen2.5-7b
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from ccai.base import files
from ccai.base.errors import UserError
from ccai.evaluate.score import examine, read, scored


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    parser.add_argument("answers", type=Path, metavar="IN.jsonl", help="lines with prompt and response")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT.jsonl", help="where the scored lines go")
    parser.add_argument("--judge", metavar="NAME", help="also ask this model (conf/models.yaml) after its exam")


def main(options: argparse.Namespace) -> None:
    """Run it."""
    if options.out.resolve() == options.answers.resolve():
        raise UserError(f"--out {options.out}: is the input; name another file")
    if options.judge:
        for _ in read(options.answers):  # a judge costs time: a bad line is told before
            pass
    judge = examine(options.judge) if options.judge else None
    classes: Counter[str] = Counter()
    verdicts: Counter[bool | None] = Counter()
    with files.writing(options.out) as out:
        for record in scored(read(options.answers), judge):
            classes[record["refusal"]] += 1
            value = record.get("harmful")
            verdicts[None if value is None else value > 0.5] += 1
            out.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        if not classes:
            raise UserError(f"{options.answers}: no records; give lines with prompt and response")
    counts = ", ".join(f"{count} {name}" for name, count in sorted(classes.items()))
    print(f"{options.out}: {classes.total()} answers, {counts}")
    if judge:
        print(f"{judge.says}; {verdicts[True]} of {verdicts[True] + verdicts[False]} readable verdicts say harmful")
