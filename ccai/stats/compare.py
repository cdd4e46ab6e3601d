"""Two files of scores of the same items: is B higher than A, and how sure is that?

    ccai compare A.jsonl B.jsonl --key prompt_id --score safety_score --by hazard

Each line of a file is an object with a key that occurs once in the file, and a score: a number, true or false, or null
where there is none (an unreadable verdict is no score: it is counted and left out). Dots lead into objects: `--score
scores.declining`. Scores that are all 0 or 1 are taken as outcomes. The statistics are those of the eval stage.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ccai.base.errors import UserError
from ccai.base.files import an_object, lines
from ccai.stats import intervals

CANNOT_TELL = "can't tell"


class ScoredItem(NamedTuple):
    """One line. `labels` are the values of the fields that both files must agree on."""

    place: str
    score: float | None
    labels: tuple[str, ...]


def read(path: Path, key: Sequence[str], score: str, labels: Sequence[str]) -> dict[tuple[str, ...], ScoredItem]:
    """Rows by the values of the key's fields.

    Raises:
        UserError: the file can't be read, a line is no JSON object, lacks a field or has the key of an earlier one, or
            a score is no number; names file, line and field.
    """
    rows: dict[tuple[str, ...], ScoredItem] = {}
    for place, record in _records(path):
        name = tuple(_label(record, field, place) for field in key)
        if name in rows:
            raise UserError(
                f"{place}: {', '.join(key)} {', '.join(name)} is also at {rows[name].place}; name further fields that "
                "tell them apart with --key, and what they share with --cluster"
            )
        rows[name] = ScoredItem(
            place, _score(record, score, place), tuple(_label(record, field, place) for field in labels)
        )
    return rows


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line's place and object; blank lines are passed over."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(lines(file, path), start=1):
                if line.strip():
                    yield f"{path}:{number}", an_object(line, f"{path}:{number}")
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UserError(f"{path}: cannot be read ({error}); give a file of JSON lines") from None


def _field(record: dict[str, Any], field: str, place: str) -> Any:
    value: Any = record
    for part in field.split("."):
        if not isinstance(value, dict) or part not in value:
            raise UserError(f"{place}: no field {field}; add it, or name another")
        value = value[part]
    return value


def _label(record: dict[str, Any], field: str, place: str) -> str:
    value = _field(record, field, place)
    if not isinstance(value, str | int | float):
        raise UserError(f"{place}: {field} must be a text or a number, not {json.dumps(value)[:80]}; correct it")
    return str(value)


def _score(record: dict[str, Any], field: str, place: str) -> float | None:
    value = _field(record, field, place)
    if value is None:
        return None
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(
            f"{place}: {field} must be a number, true, false or null, not {json.dumps(value)[:80]}; correct it"
        )
    return float(value)


def _read_both(
    a: Path, b: Path, key: Sequence[str], score: str, labels: Sequence[str]
) -> tuple[dict[tuple[str, ...], ScoredItem], dict[tuple[str, ...], ScoredItem]]:
    """Rows of two files that have items in common and agree on their labels."""
    first, second = read(a, key, score, labels), read(b, key, score, labels)
    common = sorted(first.keys() & second.keys())
    if not common:
        raise UserError(f"{a} and {b} have no {', '.join(key)} in common; compare scores of the same items")
    for name in common:
        if first[name].labels != second[name].labels:
            here, there = ", ".join(second[name].labels), ", ".join(first[name].labels)
            raise UserError(
                f"{second[name].place}: {', '.join(labels)} is {here}, but {there} at {first[name].place}; correct one"
            )
    return first, second


def _scored(
    first: Mapping[tuple[str, ...], ScoredItem], second: Mapping[tuple[str, ...], ScoredItem]
) -> dict[tuple[str, ...], tuple[float, float]]:
    """Both scores of each item that has both, in the order of the keys."""
    scores = {name: (first[name].score, second[name].score) for name in sorted(first.keys() & second.keys())}
    return {name: (x, y) for name, (x, y) in scores.items() if x is not None and y is not None}


def compare(
    a: Path,
    b: Path,
    key: Sequence[str],
    score: str,
    *,
    cluster: str | None = None,
    by: str | None = None,
    seed: int = 0,
    resamples: int = 10_000,
) -> dict[str, Any]:
    """Scores in b against those in a, item by item; see `ccai.stats.intervals.paired_difference`.

    Args:
        key: fields that name an item.
        cluster: a field whose items are not independent, such as the prompt that several answers share.
        by: a field to compare in groups as well; `p_holm` is then adjusted over all groups, and gives their verdicts.

    Returns:
        Counts, means, difference, effect sizes and p value; with `by` the same for each group under `by`. The order of
        the lines plays no part. A figure that can't be had is None.

    Raises:
        UserError: bad input (see `read`), no item in common, or a label that differs between the files.
    """
    labels = [field for field in (cluster, by) if field]
    first, second = _read_both(a, b, key, score, labels)
    common, pairs = first.keys() & second.keys(), _scored(first, second)
    if not pairs:
        raise UserError(f"{a} and {b} have no item with a {score} in both; compare scores of the same items")
    yes_no = all(value in (0, 1) for pair in pairs.values() for value in pair)

    def measured(names: Collection[tuple[str, ...]]) -> dict[str, Any]:
        return summary(
            intervals.paired_difference(
                [pairs[name][0] for name in names],
                [pairs[name][1] for name in names],
                seed,
                resamples,
                clusters=[first[name].labels[0] for name in names] if cluster else None,
                yes_no=yes_no,
            )
        )

    found: dict[str, Any] = {
        "a": str(a),
        "b": str(b),
        "score": score,
        "unmatched": {"a": len(first) - len(common), "b": len(second) - len(common)},
        "without_score": len(common) - len(pairs),
        **measured(pairs),
    }
    if by:
        groups: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for name in pairs:
            groups[first[name].labels[-1]].append(name)
        found["by"] = {label: measured(groups[label]) for label in sorted(groups)}
        adjust(list(found["by"].values()))
        for group in found["by"].values():
            if group["p_holm"] is None or group["p_holm"] >= 0.05:  # of many groups some differ by chance
                group["verdict"] = CANNOT_TELL
    return found


def words(comparison: Mapping[str, Any]) -> str:
    """What `compare` found, as it is read: the answer first."""
    what = "items" if comparison["clusters"] == comparison["n"] else f"items in {comparison['clusters']} clusters"
    answers = {
        "higher": "higher: B is higher than A",
        "lower": "lower: B is lower than A",
        CANNOT_TELL: "can't tell: B may be higher or lower than A",
    }
    lines = [
        f"{answers[comparison['verdict']]} in {comparison['score']}: {_gap(comparison)}, on {comparison['n']} {what}",
        f"A  {comparison['a']}: mean {comparison['mean_a']:.3f}",
        f"B  {comparison['b']}: mean {comparison['mean_b']:.3f}",
    ]
    if comparison["p"] is not None:
        lines.append(f"p {comparison['p']:.3f} ({comparison['test']}, which the interval agrees with)")
    left_out = [f"{count} only in {letter.upper()}" for letter, count in comparison["unmatched"].items() if count]
    left_out += [f"{comparison['without_score']} without a score"] if comparison["without_score"] else []
    if left_out:
        lines.append(f"left out: {', '.join(left_out)}")
    for label, group in comparison.get("by", {}).items():
        holm = "" if group["p_holm"] is None else f", p after Holm {group['p_holm']:.3f}"
        lines.append(f"  {label}: {group['verdict']}, by {_gap(group)}, on {group['n']}{holm}")
    return "\n".join(lines)


def _gap(comparison: Mapping[str, Any]) -> str:
    """The difference with its interval."""
    gap = comparison["difference"]
    bounds = "no interval: too few differ" if gap["low"] is None else f"[{gap['low']:+z.3f}, {gap['high']:+z.3f}]"
    return f"{gap['estimate']:+z.3f} {bounds}"


def summary(gap: intervals.PairedDifference) -> dict[str, Any]:
    """A paired difference as JSON; nan is None.

    `verdict` is `higher` or `lower` where the interval of b − a leaves out 0, else `can't tell`.
    """
    low, high = gap.difference.low, gap.difference.high
    return {
        "n": gap.n,
        "clusters": gap.clusters,
        "mean_a": gap.mean_a,
        "mean_b": gap.mean_b,
        "difference": _interval(gap.difference),
        "verdict": "higher" if low > 0 else "lower" if high < 0 else CANNOT_TELL,
        "d_av": _interval(gap.d_av),
        "d_z": _interval(gap.d_z),
        "hedges_j": intervals.number(gap.hedges_j),
        "p": intervals.number(gap.p_value),
        "test": gap.test,
    }


def adjust(rows: Sequence[dict[str, Any]], name: str = "p_holm") -> None:
    """Add to each row its `p` adjusted by Holm over all rows that have one."""
    tested = [row for row in rows if row["p"] is not None]
    adjusted = iter(intervals.holm([row["p"] for row in tested])) if tested else iter(())
    for row in rows:
        row[name] = None if row["p"] is None else next(adjusted)


def _interval(interval: intervals.Interval) -> dict[str, float | None]:
    return {name: intervals.number(getattr(interval, name)) for name in ("estimate", "low", "high")}
