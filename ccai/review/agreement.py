"""Agreement between reviewers, and between people and the judge, on which answer of a pair is better."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from statsmodels.stats.inter_rater import cohens_kappa

from ccai.base.records import DroppedPair, Pair
from ccai.review.log import Label, Review, content, label
from ccai.stats import intervals

LABELS: tuple[Label, ...] = ("chosen", "rejected", "tie")
"""Labels by which people's and the judge's verdicts are compared."""


class Agreement(NamedTuple):
    """Agreement of two raters' labels of the same items."""

    n: int
    """Items."""
    raw: intervals.Interval
    """Share of equal labels, with the exact interval for independent items."""
    kappa: intervals.Interval
    """Cohen's kappa (1960), unweighted, with the asymptotic interval of Fleiss, Cohen & Everitt (1969)."""


def majority(labels: Iterable[Label]) -> Label:
    """The label that more than half of the people give; a tie if there is none."""
    counts = Counter(labels)
    winner, votes = counts.most_common(1)[0]
    return winner if 2 * votes > counts.total() else "tie"


def agreement(a: Sequence[Label], b: Sequence[Label]) -> Agreement:
    """Raw agreement and Cohen's kappa of two raters' labels, item by item.

    Kappa is nan where it is undefined: both raters gave the same single label throughout. Its bounds are nan as well
    where its standard error is 0, for example at complete agreement: the data show no spread.

    Raises:
        ValueError: no items, or different numbers of labels.
    """
    counts = Counter(zip(a, b, strict=True))
    table = np.array([[counts[one, other] for other in LABELS] for one in LABELS], dtype=np.float64)
    n = int(table.sum())
    raw = intervals.proportion_interval(int(np.trace(table)), n)
    if np.count_nonzero(table) == 1 and raw.estimate == 1:
        return Agreement(n, raw, intervals.Interval(math.nan, math.nan, math.nan, n))
    with np.errstate(invalid="ignore"):  # it also tests against 0, which is 0 / 0 without spread
        kappa = cohens_kappa(table)
    spread = kappa.std_kappa > 1e-12
    low, high = (float(kappa.kappa_low), float(kappa.kappa_upp)) if spread else (math.nan, math.nan)
    return Agreement(n, raw, intervals.Interval(float(kappa.kappa), low, high, n))


def summary(pairs: Sequence[Pair], reviews: Mapping[str, Mapping[str, Review]]) -> dict[str, Any]:
    """Metrics of all reviewers' verdicts.

    Args:
        pairs: the current pairs, kept and dropped.
        reviews: standing verdicts by reviewer and `content`. Verdicts on texts that no longer exist are counted as
            `outdated` and left out.

    Returns:
        `people`, one verdict per pair by majority, on kept pairs; `by_reviewer`, the same for each; `people_judge`, one
        verdict per pair against `verdict.preference` on kept and dropped pairs, None where no pair has both;
        `between_reviewers`, each two on the pairs that both labelled.
    """
    now = {content(pair): pair for pair in pairs}
    current = {name: {key: r for key, r in marks.items() if key in now} for name, marks in sorted(reviews.items())}
    labels = {name: _labels(marks) for name, marks in current.items()}
    reviewed = [key for key in now if any(key in marks for marks in labels.values())]
    joint = {key: majority(marks[key] for marks in labels.values() if key in marks) for key in reviewed}
    kept_keys = {key for key, pair in now.items() if not isinstance(pair, DroppedPair)}
    judged = {
        key: pair.verdict.preference
        for key, pair in now.items()
        if pair.verdict and pair.verdict.preference is not None
    }
    return {
        "chosen_model": ", ".join(sorted({now[key].chosen_model for key in reviewed})),
        "rejected_model": ", ".join(sorted({now[key].rejected_model for key in reviewed})),
        "reviewers": len(current),
        "pairs": len(reviewed),
        "outdated": sum(len(marks) for marks in reviews.values()) - sum(len(marks) for marks in current.values()),
        "people": _preference([joint[key] for key in reviewed if key in kept_keys])
        | {
            "by_principle": {
                principle: _preference(
                    [joint[key] for key in reviewed if key in kept_keys and now[key].principle == principle]
                )
                for principle in sorted({now[key].principle for key in reviewed if key in kept_keys})
            }
        },
        "by_reviewer": {
            name: _preference([marks[key] for key in marks if key in kept_keys]) | _manner(current[name])
            for name, marks in labels.items()
        },
        "people_judge": _compared(joint, judged),
        "between_reviewers": {
            f"{a}, {b}": compared
            for a, b in combinations(labels, 2)
            if (compared := _compared(labels[a], labels[b])) is not None
        },
    }


def _labels(reviews: Mapping[str, Review]) -> dict[str, Label]:
    labels = {key: label(review) for key, review in reviews.items()}
    return {key: preferred for key, preferred in labels.items() if preferred is not None}


def _preference(labels: Sequence[Label]) -> dict[str, Any]:
    """How often `chosen` is preferred where either answer is."""
    decided = len(labels) - labels.count("tie")
    return {"n": len(labels), "ties": labels.count("tie")} | (
        {"chosen_preferred": _share(intervals.proportion_interval(labels.count("chosen"), decided))} if decided else {}
    )


def _manner(reviews: Mapping[str, Review]) -> dict[str, Any]:
    """Figures about the reviewer rather than the answers: the order is random, so preferring one side is a habit."""
    counts = Counter(review.choice for review in reviews.values())
    decided = counts["first"] + counts["second"]
    return {"both_bad": counts["both_bad"], "skipped": counts["skip"]} | (
        {"first_preferred": _share(intervals.proportion_interval(counts["first"], decided))} if decided else {}
    )


def _compared(a: Mapping[str, Label], b: Mapping[str, Label]) -> dict[str, Any] | None:
    """Agreement with ties as a label, and again on the items where neither rater has a tie."""
    both = [(a[key], b[key]) for key in a if key in b]
    decided = [pair for pair in both if "tie" not in pair]
    if not both:
        return None
    return _figures(both) | {"without_ties": _figures(decided) if decided else {"n": 0}}


def _figures(labels: Sequence[tuple[Label, Label]]) -> dict[str, Any]:
    result = agreement(*zip(*labels, strict=True))
    return {"n": result.n, "raw": _share(result.raw), "kappa": _share(result.kappa)}


def _share(interval: intervals.Interval) -> dict[str, float | None]:
    values = (interval.estimate, interval.low, interval.high)
    mean, low, high = (None if math.isnan(value) else value for value in values)
    return {"mean": mean, "low": low, "high": high}


def lines(metrics: Mapping[str, Any]) -> list[str]:
    """The main figures of a `summary`, as lines to print."""

    def share(value: Mapping[str, float | None]) -> str:
        mean, low, high = ("?" if value[key] is None else f"{value[key]:.2f}" for key in ("mean", "low", "high"))
        return mean if low == "?" else f"{mean} [{low}, {high}]"

    def compared(name: str, pair: Mapping[str, Any]) -> str:
        return f"{name}: {pair['n']} pairs, raw {share(pair['raw'])}, kappa {share(pair['kappa'])}"

    people = metrics["people"]
    text = [
        f"review: {metrics['pairs']} pairs by {metrics['reviewers']} reviewers; {metrics['outdated']} verdicts outdated"
    ]
    if "chosen_preferred" in people:
        decided = people["n"] - people["ties"]
        text.append(f"people prefer chosen: {share(people['chosen_preferred'])} of {decided}; {people['ties']} ties")
    text += [compared(names, pair) for names, pair in metrics["between_reviewers"].items()]
    if metrics["people_judge"]:
        text.append(compared("people and judge", metrics["people_judge"]))
    else:
        text.append("people and judge: none of these pairs has a judge's preference, so nothing to compare")
    return text
