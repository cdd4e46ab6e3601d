"""How far people agree with the judge and with each other on which answer of a pair is better."""

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
"""What people's and the judge's verdicts are compared by."""


class Agreement(NamedTuple):
    """How two raters' labels of the same items go together."""

    n: int
    """Items."""
    raw: intervals.Interval
    """Share of equal labels, exact interval, as if items were independent."""
    kappa: intervals.Interval
    """Cohen's kappa (1960), unweighted, with the asymptotic interval of Fleiss, Cohen & Everitt (1969)."""


def majority(labels: Iterable[Label]) -> Label:
    """What more than half of the people say; a tie where no label has that many."""
    counts = Counter(labels)
    winner, votes = counts.most_common(1)[0]
    return winner if 2 * votes > counts.total() else "tie"


def agreement(a: Sequence[Label], b: Sequence[Label]) -> Agreement:
    """Raw agreement and Cohen's kappa of two raters' labels, item by item.

    Kappa is nan where it is not defined: both raters gave one and the same label throughout. Its bounds are nan, too,
    where its standard error is 0, as when agreement is complete: the data show no spread.

    Raises:
        ValueError: no items, or unequally many labels.
    """
    counts = Counter(zip(a, b, strict=True))
    table = np.array([[counts[one, other] for other in LABELS] for one in LABELS], dtype=np.float64)
    n = int(table.sum())
    raw = intervals.proportion_interval(int(np.trace(table)), n)
    if np.count_nonzero(table) == 1 and raw.estimate == 1:
        return Agreement(n, raw, intervals.Interval(math.nan, math.nan, math.nan, n))
    with np.errstate(invalid="ignore"):  # it also tests against 0, which no spread makes 0 / 0
        kappa = cohens_kappa(table)
    spread = kappa.std_kappa > 1e-12
    low, high = (float(kappa.kappa_low), float(kappa.kappa_upp)) if spread else (math.nan, math.nan)
    return Agreement(n, raw, intervals.Interval(float(kappa.kappa), low, high, n))


def summary(pairs: Sequence[Pair], reviews: Mapping[str, Mapping[str, Review]]) -> dict[str, Any]:
    """Metrics of all reviewers' verdicts.

    Args:
        pairs: kept and dropped ones, as they are now.
        reviews: standing verdicts by reviewer and `content`. Those on texts that are gone are counted as `outdated`
            and left out.

    Returns:
        `people`, one verdict per pair by majority, on kept pairs; `by_reviewer`, the same for each; `people_judge`,
        one verdict per pair against `verdict.preference` on kept and dropped pairs, None where no pair has both;
        `between_reviewers`, each two on the pairs that both labelled.
    """
    now = {content(pair): pair for pair in pairs}
    current = {name: {key: r for key, r in given.items() if key in now} for name, given in sorted(reviews.items())}
    labels = {name: _labels(given) for name, given in current.items()}
    reviewed = [key for key in now if any(key in given for given in labels.values())]
    joint = {key: majority(given[key] for given in labels.values() if key in given) for key in reviewed}
    kept = {key for key, pair in now.items() if not isinstance(pair, DroppedPair)}
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
        "outdated": sum(len(given) for given in reviews.values()) - sum(len(given) for given in current.values()),
        "people": _preference([joint[key] for key in reviewed if key in kept])
        | {
            "by_principle": {
                principle: _preference(
                    [joint[key] for key in reviewed if key in kept and now[key].principle == principle]
                )
                for principle in sorted({now[key].principle for key in reviewed if key in kept})
            }
        },
        "by_reviewer": {
            name: _preference([given[key] for key in given if key in kept]) | _manner(current[name])
            for name, given in labels.items()
        },
        "people_judge": _compared(joint, judged),
        "between_reviewers": {
            f"{a}, {b}": compared
            for a, b in combinations(labels, 2)
            if (compared := _compared(labels[a], labels[b])) is not None
        },
    }


def _labels(reviews: Mapping[str, Review]) -> dict[str, Label]:
    given = {key: label(review) for key, review in reviews.items()}
    return {key: said for key, said in given.items() if said is not None}


def _preference(labels: Sequence[Label]) -> dict[str, Any]:
    """How often `chosen` is preferred where one of the two is."""
    decided = len(labels) - labels.count("tie")
    return {"n": len(labels), "ties": labels.count("tie")} | (
        {"chosen_preferred": _share(intervals.proportion_interval(labels.count("chosen"), decided))} if decided else {}
    )


def _manner(reviews: Mapping[str, Review]) -> dict[str, Any]:
    """What tells of the reviewer, not of the answers: preferring one side is a habit, as the order is drawn."""
    counts = Counter(review.choice for review in reviews.values())
    decided = counts["first"] + counts["second"]
    return {"both_bad": counts["both_bad"], "skipped": counts["skip"]} | (
        {"first_preferred": _share(intervals.proportion_interval(counts["first"], decided))} if decided else {}
    )


def _compared(a: Mapping[str, Label], b: Mapping[str, Label]) -> dict[str, Any] | None:
    """Agreement with ties as a label of their own, and again on the items where neither rater has a tie."""
    both = [(a[key], b[key]) for key in a if key in b]
    decided = [pair for pair in both if "tie" not in pair]
    if not both:
        return None
    return _figures(both) | {"without_ties": _figures(decided) if decided else {"n": 0}}


def _figures(labels: Sequence[tuple[Label, Label]]) -> dict[str, Any]:
    found = agreement(*zip(*labels, strict=True))
    return {"n": found.n, "raw": _share(found.raw), "kappa": _share(found.kappa)}


def _share(interval: intervals.Interval) -> dict[str, float | None]:
    values = (interval.estimate, interval.low, interval.high)
    mean, low, high = (None if math.isnan(value) else value for value in values)
    return {"mean": mean, "low": low, "high": high}


def lines(found: Mapping[str, Any]) -> list[str]:
    """The main figures of a `summary`, to be printed."""

    def share(value: Mapping[str, float | None]) -> str:
        mean, low, high = ("?" if value[key] is None else f"{value[key]:.2f}" for key in ("mean", "low", "high"))
        return mean if low == "?" else f"{mean} [{low}, {high}]"

    def compared(name: str, pair: Mapping[str, Any]) -> str:
        return f"{name}: {pair['n']} pairs, raw {share(pair['raw'])}, kappa {share(pair['kappa'])}"

    people = found["people"]
    text = [f"review: {found['pairs']} pairs by {found['reviewers']} reviewers; {found['outdated']} verdicts outdated"]
    if "chosen_preferred" in people:
        decided = people["n"] - people["ties"]
        text.append(f"people prefer chosen: {share(people['chosen_preferred'])} of {decided}; {people['ties']} ties")
    text += [compared(names, pair) for names, pair in found["between_reviewers"].items()]
    if found["people_judge"]:
        text.append(compared("people and judge", found["people_judge"]))
    else:
        text.append("people and judge: none of these pairs has a judge's preference, so nothing to compare")
    return text
