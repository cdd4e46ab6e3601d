"""Compares arms with the base arm, item by item: means, paired differences, their intervals, and the verdict on the
registered metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from ccai.base.eval_params import Primary
from ccai.stats import intervals
from ccai.stats.compare import adjust, summary
from ccai.stats.outcomes import is_measure

LESS_IS_BETTER = {
    "heldout.refusal.harmless_refused",
    "heldout.judge.harmful",
    "jailbreaks.success",
    "jailbreaks.judge.harmful",
    "over_refusal.refused_safe",
    "helpfulness.refused",
}
"""The primary metrics (`ccai.base.eval_params.Primary`) that should decrease."""


class Comparison:
    """Measures of one suite; p values are adjusted over all of them."""

    def __init__(self, seed: int, resamples: int) -> None:
        self._seed, self._resamples = seed, resamples
        self._tested: list[dict[str, Any]] = []
        self._apart: list[Comparison] = []

    def apart(self) -> Comparison:
        """A comparison for a breakdown, such as by hazard, whose p values are adjusted among themselves."""
        self._apart.append(Comparison(self._seed, self._resamples))
        return self._apart[-1]

    def measure(
        self, values: Mapping[str, Sequence[float | None]], clusters: Sequence[str], *, yes_no: bool = False
    ) -> dict[str, Any]:
        """Means of all arms, and the difference of each from the base.

        Args:
            values: by arm, including `base`, one value per item in the same order; an item that is None for any arm is
                left out.
            clusters: a label for each item; items of the same label (such as one prompt's) are not independent.
            yes_no: the values are outcomes, 0 or 1.

        Returns:
            n, {mean, low, high} for each arm and, under `difference`, for each arm but the base, arm minus base: mean,
            low and high, d_av, d_z, p, and p_holm after `adjust`. Intervals are 95 %. Figures that cannot be computed
            are None. Without items there is only n; where each item is None for some arm, also their count, as
            `unreadable`.

        Raises:
            ValueError: arms or clusters differ in length.
        """
        rows = [row for row in zip(clusters, *values.values(), strict=True) if None not in row]
        if not rows:
            return {"n": 0, "unreadable": len(clusters)} if clusters else {"n": 0}
        labels, *columns = ([row[at] for row in rows] for at in range(1 + len(values)))
        readable = dict(zip(values, columns, strict=True))
        differences = {}
        for arm, column in readable.items():
            if arm == "base":
                continue
            gap = summary(
                intervals.paired_difference(
                    readable["base"], column, self._seed, self._resamples, clusters=labels, yes_no=yes_no
                )
            )
            interval = gap["difference"]
            differences[arm] = {
                "mean": interval["estimate"],
                "low": interval["low"],
                "high": interval["high"],
                "d_av": gap["d_av"]["estimate"],
                "d_z": gap["d_z"]["estimate"],
                "p": gap["p"],
            }
        self._tested += differences.values()
        means = {arm: self._mean(column, labels, yes_no) for arm, column in readable.items()}
        return {"n": len(rows), **means, "difference": differences}

    def _mean(self, values: Sequence[float], clusters: Sequence[str], yes_no: bool) -> dict[str, float | None]:
        """A share has an exact binomial interval; a mean, or a share of clustered items, a bootstrap interval."""
        if yes_no and len(set(clusters)) == len(values):
            interval = intervals.proportion_interval(int(sum(values)), len(values))
        else:
            interval = intervals.mean_interval(values, self._seed, self._resamples, clusters=clusters)
        return {
            "mean": interval.estimate,
            "low": intervals.number(interval.low),
            "high": intervals.number(interval.high),
        }

    def adjust(self) -> None:
        """Set the `p_holm` of every difference: Holm's p over all measures here, and over each breakdown separately."""
        adjust(self._tested)
        for breakdown in self._apart:
            breakdown.adjust()


Record = TypeVar("Record")


@dataclass(frozen=True)
class Items(Generic[Record]):
    """Items of a measurement. Properties common to an item's records, such as its label, are read from the first.

    Attributes:
        arms: their names, including `base`.
        rows: for each item the record of every arm, in the order of `arms`.
        cluster: gives an item's label; items of the same label (such as one prompt's) are not independent.
    """

    arms: list[str]
    rows: list[tuple[Record, ...]]
    cluster: Callable[[Record], str]

    @classmethod
    def of(cls, answers: Mapping[str, Sequence[Record]], cluster: Callable[[Record], str]) -> Items[Record]:
        """From records by arm, all in the same order. Raises ValueError if arms differ in length."""
        return cls(list(answers), list(zip(*answers.values(), strict=True)), cluster)

    def only(self, counts: Callable[[Record], bool]) -> Items[Record]:
        """The items for which `counts` is true."""
        return replace(self, rows=[row for row in self.rows if counts(row[0])])

    def by(self, label: Callable[[Record], str], first: Iterable[str] = ()) -> dict[str, Items[Record]]:
        """The items of each label, in order of first occurrence; labels in `first` come first, even without items."""
        groups: dict[str, list[tuple[Record, ...]]] = {name: [] for name in first}
        for row in self.rows:
            groups.setdefault(label(row[0]), []).append(row)
        return {name: replace(self, rows=rows) for name, rows in groups.items()}

    def readable(self, value: Callable[[Record], float | None]) -> Items[Record]:
        """The items whose value is None for no arm."""
        return replace(self, rows=[row for row in self.rows if None not in map(value, row)])

    def unreadable(self, value: Callable[[Record], float | None]) -> float:
        """Share of items whose value is None for any arm."""
        return (len(self.rows) - len(self.readable(value).rows)) / len(self.rows)

    def values(self, value: Callable[[Record], float | None]) -> dict[str, list[float | None]]:
        """By arm, the value of each item."""
        return {arm: [value(row[at]) for row in self.rows] for at, arm in enumerate(self.arms)}

    def measure(
        self, comparison: Comparison, value: Callable[[Record], float | None], *, yes_no: bool = False
    ) -> dict[str, Any]:
        """The arms compared by a value of their records; see `Comparison.measure`."""
        return comparison.measure(self.values(value), [self.cluster(row[0]) for row in self.rows], yes_no=yes_no)


def measures(nested: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """The measures of a suite with their paths of names, without breakdowns (names that begin with `by_`)."""
    for name, value in nested.items():
        if not isinstance(value, dict) or name.startswith("by_"):
            continue
        if is_measure(value):
            yield (*path, name), value
        else:
            yield from measures(value, (*path, name))


def registered(measured: Mapping[str, Any], primary: Primary) -> dict[str, Any]:
    """The verdict on the metrics registered before the run, by the 95 % interval of tuned minus base.

    Safety is `met` if the interval lies on the better side of 0, `not met` if on the worse. Helpfulness is `met` if it
    lies on the better side of the bound (non-inferiority: a loss of up to `primary.bound` is accepted), `not met` if on
    the worse. Otherwise, and without an interval, `can't tell`.

    Args:
        measured: the measures of each suite.

    Returns:
        `safety` and `helpfulness`, each {verdict, metric, better, bound, n} and, where n is not 0, base, tuned, and
        mean, low and high of the difference; `unreadable` as in `Comparison.measure`. `better` is `more` or `less`.
    """
    return {
        "safety": _verdict(measured, primary.safety, 0.0),
        "helpfulness": _verdict(measured, primary.helpfulness, primary.bound),
    }


def _verdict(measured: Mapping[str, Any], metric: str, bound: float) -> dict[str, Any]:
    value: Any = measured
    for name in metric.split("."):
        value = value.get(name, {"n": 0})  # missing if the judge failed its exam
    sign = -1 if metric in LESS_IS_BETTER else 1
    verdict, figures = "can't tell", {name: value[name] for name in ("unreadable",) if name in value}
    if value["n"]:
        gap = value["difference"]["tuned"]
        figures = {"base": value["base"]["mean"], "tuned": value["tuned"]["mean"]}
        figures |= {name: gap[name] for name in ("mean", "low", "high")}
        if gap["low"] is not None:
            worst, best = sorted((sign * gap["low"], sign * gap["high"]))
            verdict = "met" if worst > -bound else "not met" if best < -bound else verdict
    better = "more" if sign > 0 else "less"
    return {"verdict": verdict, "metric": metric, "better": better, "bound": bound, "n": value["n"], **figures}
