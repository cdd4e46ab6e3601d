"""How often a 95 % interval of ccai.stats.intervals holds the truth, in simulated studies whose truth is known.

    python -m bench.coverage                    1,000 studies of each design and size

Designs look like what is compared here: outcomes (0 or 1) of a model that changes often or seldom, scores that are 0
for most prompts, skewed scores, normal ones, and several answers to one prompt. Sizes are numbers of prompts. Shares
are of all studies: those whose bounds hold the truth, those whose bounds leave it out, and those without bounds (too
few pairs differ), which say "can't tell".
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import machine
from ccai.base.errors import run
from ccai.stats import intervals as stats

SIZES = (24, 42, 100)
RESAMPLES = 2_000
Values = NDArray[np.float64]


class Design(NamedTuple):
    """Both arms' values for n prompts; one row for each prompt, one column for each of its answers."""

    draw: Callable[[np.random.Generator, int], tuple[Values, Values]]
    yes_no: bool = False


def _outcomes(share_a: float, share_b: float, alike: float) -> Design:
    """Yes/no in both arms; `alike` is the share of prompts on which both arms follow one coin."""

    def draw(rng: np.random.Generator, n: int) -> tuple[Values, Values]:
        own, other = rng.random((n, 1)), rng.random((n, 1))
        same = rng.random((n, 1)) < alike
        return (own < share_a).astype(float), (np.where(same, own, other) < share_b).astype(float)

    return Design(draw, yes_no=True)


def _mostly_zero(share_a: float, share_b: float) -> Design:
    """Scores as of the rules: 0 where no sentence has a cue, else 0.25, 0.5, 0.75 or 1."""

    def draw(rng: np.random.Generator, n: int) -> tuple[Values, Values]:
        def arm(share: float) -> Values:
            return (rng.random((n, 1)) < share) * rng.integers(1, 5, (n, 1)) / 4

        return arm(share_a), arm(share_b)

    return Design(draw)


def _skewed(shift: float) -> Design:
    """Log-normal, as lengths are; what the prompt asks for makes up three quarters of the variance of the logarithm."""

    def draw(rng: np.random.Generator, n: int) -> tuple[Values, Values]:
        prompt = 0.7 * rng.normal(size=(n, 1))
        return np.exp(prompt + 0.4 * rng.normal(size=(n, 1))), np.exp(prompt + shift + 0.4 * rng.normal(size=(n, 1)))

    return Design(draw)


def _uneven(a: float, b: float) -> Design:
    """Scores in [0, 1] that lie near its ends (beta)."""
    return Design(lambda rng, n: (rng.beta(0.5, a, (n, 1)), rng.beta(0.5, b, (n, 1))))


def _normal(shift: float, answers: int = 1) -> Design:
    """Normal scores; how a prompt suits each arm is half of the variance, so answers to one prompt go together."""

    def draw(rng: np.random.Generator, n: int) -> tuple[Values, Values]:
        def arm() -> Values:
            return rng.normal(size=(n, 1)) + rng.normal(size=(n, answers))

        return arm(), arm() + shift

    return Design(draw)


DESIGNS = {
    "outcomes .30 -> .20": _outcomes(0.3, 0.2, 0.5),
    "outcomes .50 -> .30": _outcomes(0.5, 0.3, 0.3),
    "outcomes .05 -> .30": _outcomes(0.05, 0.3, 0.3),
    "outcomes .10 -> .10": _outcomes(0.1, 0.1, 0.3),
    "mostly zero .20 -> .20": _mostly_zero(0.2, 0.2),
    "mostly zero .10 -> .30": _mostly_zero(0.1, 0.3),
    "skewed": _skewed(0.2),
    "uneven": _uneven(2, 1.5),
    "normal": _normal(0.5),
    "clustered, 4 answers": _normal(0.3, answers=4),
}


def measure(name: str, n: int, studies: int, seed: int) -> dict[str, dict[str, float]]:
    """Coverage of each interval that the design can have, by its name."""
    design = DESIGNS[name]
    rng = np.random.default_rng([seed, n, *name.encode()])
    truth = _truth(design)
    held: dict[str, list[bool | None]] = {}
    for study in range(studies):
        a, b = design.draw(rng, n)
        clusters = np.arange(n).repeat(a.shape[1]).tolist()
        flat_a, flat_b = a.ravel().tolist(), b.ravel().tolist()
        found = stats.paired_difference(flat_a, flat_b, study, RESAMPLES, clusters=clusters, yes_no=design.yes_no)
        intervals = {
            f"difference, {found.test}": (found.difference, truth["difference"]),
            "d_av, BCa": (found.d_av, truth["d_av"]),
            "d_z, BCa": (found.d_z, truth["d_z"]),
        }
        if design.yes_no:
            intervals["share, exact"] = stats.proportion_interval(int(a.sum()), n), truth["mean"]
        else:
            mean = stats.mean_interval(flat_a, study, RESAMPLES, clusters=clusters)
            intervals["mean, BCa"] = mean, truth["mean"]
        for kind, (interval, wanted) in intervals.items():
            inside = None if math.isnan(interval.low) else interval.low <= wanted <= interval.high
            held.setdefault(kind, []).append(inside)
    return {kind: _shares(verdicts) for kind, verdicts in held.items()}


def _truth(design: Design) -> dict[str, float]:
    """Of a million prompts."""
    a, b = design.draw(np.random.default_rng(0), 1_000_000)
    gap = float(b.mean() - a.mean())
    spread = math.sqrt((float(a.var()) + float(b.var())) / 2)
    return {"mean": float(a.mean()), "difference": gap, "d_av": gap / spread, "d_z": gap / float((b - a).std())}


def _shares(verdicts: list[bool | None]) -> dict[str, float]:
    outcomes = {"held": True, "left_out": False, "no_bounds": None}
    return {name: round(verdicts.count(outcome) / len(verdicts), 3) for name, outcome in outcomes.items()}


def main() -> None:
    """Every design at every size."""
    parser = argparse.ArgumentParser(prog="python -m bench.coverage", description="Coverage of the intervals.")
    parser.add_argument("--studies", type=int, default=1_000, help="of each design and size (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7)
    machine.add_results(parser)
    options = parser.parse_args()
    coverage: dict[str, Any] = {}
    for name in DESIGNS:
        coverage[name] = {f"n {n}": measure(name, n, options.studies, options.seed) for n in SIZES}
        for size, intervals in coverage[name].items():
            row = "   ".join(
                f"{kind} {shares['held']:.3f}" + f" ({shares['no_bounds']:.0%} none)" * (shares["no_bounds"] > 0)
                for kind, shares in intervals.items()
            )
            print(f"{name:<24} {size:<6} {row}", flush=True)
    values = {"studies": options.studies, "resamples": RESAMPLES, "seed": options.seed, "coverage": coverage}
    print(f"written: {machine.write(options.results, 'coverage', 'bench.coverage', sys.argv[1:], values)}")


if __name__ == "__main__":
    run(main)
