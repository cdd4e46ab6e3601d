"""Let people say which of two answers is better, without showing them which one is chosen.

    ccai review --reviewer ann            # opens a local page; keys 1 to 5, d for differences, u to undo
    ccai review --reviewer ann --judged   # only pairs that a judge compared, dropped ones too
    ccai review --agreement               # people against the judge and each other: metrics/review.json

Every verdict is on disk (data/reviews/NAME.jsonl) before the next pair is shown. The same command resumes where it
stopped. See docs/REVIEW.md.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from importlib.util import find_spec

from ccai.base import files, params
from ccai.base.errors import UserError
from ccai.constitution import principles as constitution
from ccai.review.app import METRICS, REVIEWS, serve
from ccai.review.desk import PAIRS, Desk, read_pairs, sample
from ccai.review.log import Log, Review, standing
from ccai.review.server import NAME, listen


def has_screen() -> bool:
    """Whether a browser window can be opened here: without one, Python would start a text browser."""
    return sys.platform == "darwin" or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())


def compare() -> None:
    """Write metrics/review.json and say the main figures.

    Raises:
        UserError: nobody has reviewed any of the pairs as they are now.
    """
    from ccai.review import agreement  # with statsmodels, which takes longer to import than the page to start

    reviews = {path.stem: standing(files.each(path, Review)) for path in sorted(REVIEWS.glob("*.jsonl"))}
    metrics = agreement.summary(read_pairs(dropped=True), reviews)
    if not metrics["pairs"]:
        raise UserError(
            f"{REVIEWS}: no verdict on the pairs as they are now ({metrics['outdated']} on other texts);"
            " begin with ccai review --reviewer NAME"
        )
    files.write_json(METRICS, metrics)
    print("\n".join(agreement.lines(metrics)))
    print(f"review: written to {METRICS}")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command line takes."""
    parser.add_argument("--agreement", action="store_true", help="compare what was said so far; opens no page")
    parser.add_argument("--reviewer", metavar="NAME", help="who reviews: the name of the file in data/reviews")
    parser.add_argument("-n", type=int, default=50, help="how many pairs (50)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another sample (0)")
    parser.add_argument("--judged", action="store_true", help="pairs that a judge compared, dropped ones too")
    parser.add_argument("--port", type=int, default=8765, help="port on this machine (8765); 0: any that is free")
    parser.add_argument("--prefix", default="", help="path that a proxy takes off, if it does not say so itself")
    parser.add_argument(
        "--host", action="append", default=[], help="name in the browser's address, if a proxy leads here"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser here")


def main(options: argparse.Namespace) -> None:
    """Run it."""
    if options.agreement:
        compare()
        return
    if not NAME.fullmatch(options.reviewer or ""):
        raise UserError("--reviewer NAME: give a name of a-z, 0-9, - and _; it becomes the name of a file")
    if options.n < 1:
        raise UserError(f"-n {options.n}: give 1 or more")
    if find_spec("nicegui") is None:
        raise UserError("ccai.review.app: NiceGUI is not installed; pip install -r requirements-review.txt")
    pairs = read_pairs(dropped=options.judged)
    if options.judged:
        pairs = [pair for pair in pairs if pair.verdict and pair.verdict.preference]
    if not pairs:
        judged = " with a judge's preference" if options.judged else ""
        raise UserError(f"{PAIRS}: no pairs{judged}; run dvc repro")
    principles = {p.slug: p for p in constitution.load(params.load().critiques.constitution).principles}
    desk = Desk(sample(pairs, options.n, options.seed), Log(REVIEWS / f"{options.reviewer}.jsonl"), options.reviewer)
    prefix = "/" + options.prefix.strip("/") if options.prefix.strip("/") else ""
    try:
        hosts = [name.lower() for name in options.host]
        serve(desk, principles, listen(options.port), prefix, hosts, show=has_screen() and not options.no_browser)
    except KeyboardInterrupt:
        print(f"stopped: {len(desk.verdicts)} of {len(desk.pairs)} pairs done; the same command goes on")
        raise SystemExit(128 + signal.SIGINT) from None
