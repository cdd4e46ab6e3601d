"""The report's charts and tables of suites: measures, breakdowns, tone, wanted and unwanted refusals, heat map."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from markupsafe import Markup

from ccai.base.records import HARMLESS
from ccai.report import charts, html
from ccai.report.charts import ChartRow, Point
from ccai.report.run_files import Run
from ccai.rules import scores
from ccai.rules.outcomes import refused
from ccai.stats.outcomes import is_measure, significant

MOST = 200
"""Prompts whose answers are shown; of more a sample is drawn, evenly over hazards and principles."""

FEW = 5
"""Prompts below which a cell of the heat map reflects single answers."""

ABOUT = {
    "heldout": ("Held-out prompts", "Prompts of the training sources that were kept from training."),
    "jailbreaks": ("Jailbreaks", "Prompts in wrappers that try to get round a refusal. Success is an answer to them."),
    "over_refusal": ("Over-refusal", "Safe prompts that look unsafe, and unsafe ones beside them."),
    "helpfulness": (
        "Helpfulness",
        "General questions. A judge reads two answers in both orders; if it wavers: a tie.",
    ),
    "capability": ("Capability", "Tasks of EleutherAI's language model evaluation harness."),
    "inspect": ("Inspect", "Tasks of inspect_evals, by the scores of their own scorers."),
    "cooperation": ("Cooperation", "Iterated prisoner's dilemma against fixed strategies."),
    "traits": ("Traits", "Questions with two options, by probability. Which end is better is for the reader to say."),
    "calibration": ("Calibration", "Questions that can be answered, questions that can't, and how sure the model is."),
    "bias": ("Bias", "Questions about two people whose text does not say who is meant: is anybody named, and whom?"),
}
"""Title and description of each suite; docs/EVALUATION.md has more."""

COLOURS = {"base": 0, "prompted": 1, "tuned": 2}
"""Indices into `charts.ARMS`; other arms take those that follow."""

OUTCOMES = {"wins", "ties", "losses"}
"""Counts that a suite gives for each arm compared with the base."""


class Series(NamedTuple):
    """An arm of a run, with its name and colour on the page."""

    name: str
    colour: int
    run: Run
    arm: str


def limit(value: Mapping[str, Any]) -> float:
    """The difference from which the aim is met."""
    return float(value["bound"] if value["better"] == "less" else -value["bound"])


def gap(value: Mapping[str, Any]) -> Any:
    """A chart of a registered metric: tuned minus base, with the bound."""
    if not value["n"]:
        return ""
    title = f"tuned minus base; {value['better']} is better"
    row = ChartRow(title, f"n {value['n']}", [Point("", 2, value["mean"], value["low"], value["high"])])
    about = f"{html.words(value['metric'])}: {title}"
    return charts.intervals([row], about, differences=True, bound=limit(value))


def tone(of: Run) -> list[dict[str, Any]]:
    """Held-out scores of tone, tuned minus base; they are no part of the verdict."""
    heldout = of.metrics.get("heldout", {})
    rows = []
    for family in scores.FAMILIES:
        for name, value in heldout.get(family, {}).items() if family != "safety" else ():
            if value["n"] and "tuned" in value["difference"]:
                rows.append({"name": name, "family": family, **value["difference"]["tuned"]})
    return rows


# Suites


class Leaf(NamedTuple):
    """An end of a suite's metrics: a measure, a figure (or one per arm), or each arm's wins, ties and losses."""

    kind: Literal["measure", "figure", "outcomes"]
    value: Any


def _leaves(
    nested: Mapping[str, Any], arms: Sequence[str], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Leaf]]:
    for name, value in nested.items():
        below = (*path, name)
        if isinstance(value, str | int | float):
            yield below, Leaf("figure", value)
        elif is_measure(value):
            yield below, Leaf("measure", value)
        elif isinstance(value, dict):
            by_arm = bool(value) and value.keys() <= set(arms)
            if by_arm and all(isinstance(of_arm, dict) and of_arm.keys() == OUTCOMES for of_arm in value.values()):
                yield below, Leaf("outcomes", value)
            elif by_arm and not any(isinstance(of_arm, dict | list) for of_arm in value.values()):
                yield below, Leaf("figure", value)
            else:
                yield from _leaves(value, arms, below)


def suites(series: Sequence[Series]) -> list[dict[str, Any]]:
    """Every suite of the runs: groups of related measures, breakdowns, and other figures."""
    return [_suite(name, series) for name in dict.fromkeys(name for one in series for name in one.run.suites)]


def _suite(suite: str, series: Sequence[Series]) -> dict[str, Any]:
    by_series = [dict(_leaves(one.run.suites.get(suite, {}), one.run.arms)) for one in series]
    groups: dict[tuple[str, ...], dict[str, list[dict[str, Any]]]] = defaultdict(dict)
    figures, outcomes = [], []
    for path in dict.fromkeys(path for leaves in by_series for path in leaves):
        of_series = [leaves.get(path) for leaves in by_series]
        kind = next(leaf.kind for leaf in of_series if leaf)
        values = [leaf.value if leaf else None for leaf in of_series]
        if kind == "figure":
            each = [
                value.get(one.arm) if isinstance(value, dict) else value
                for one, value in zip(series, values, strict=True)
            ]
            figures.append((html.words(path), each))
        elif kind == "outcomes":
            bars = [
                (one.name, value[one.arm])
                for one, value in zip(series, values, strict=True)
                if value is not None and one.arm in value
            ]
            outcomes.append((html.words(path), charts.outcomes(bars, f"{suite}: {html.words(path)}")))
        else:
            broken = next((place for place, name in enumerate(path) if name.startswith("by_")), len(path) - 2)
            heading = path[: broken + 1]
            groups[heading][html.words(path[broken + 1 :])] = [value or {"n": 0} for value in values]
    shown = [_group(suite, heading, rows, series) for heading, rows in groups.items()]
    return {
        "name": suite,
        "title": ABOUT.get(suite, (html.words(suite).capitalize(), ""))[0],
        "about": ABOUT.get(suite, ("", ""))[1],
        "groups": sorted(shown, key=lambda group: bool(group["breakdown"])),
        "figures": figures,
        "outcomes": outcomes,
    }


def _group(
    suite: str, heading: tuple[str, ...], rows: Mapping[str, Sequence[dict[str, Any]]], series: Sequence[Series]
) -> dict[str, Any]:
    """Charts and table of the measures under one heading. Shares and scores share an axis, others have their own."""
    means, gaps, table, absent, unreadable = [], [], [], [], []
    broken = bool(heading) and heading[-1].startswith("by_")
    for title, values in rows.items():
        counts = dict.fromkeys(value["n"] for value in values if value["n"])
        if not counts:
            count_unreadable = max(value.get("unreadable", 0) for value in values)
            unreadable.append(f"{title} ({count_unreadable})") if count_unreadable else absent.append(title)
            continue
        note = "n " + " and ".join(map(str, counts))
        points, differences = [], []
        for one, value in zip(series, values, strict=True):
            if one.arm not in value:
                continue
            mean, gap = value[one.arm], value.get("difference", {}).get(one.arm)
            points.append(Point(one.name, one.colour, mean["mean"], mean["low"], mean["high"]))
            if gap:
                mark = "*" if significant(gap) and not broken else ""
                differences.append(Point(one.name, one.colour, gap["mean"], gap["low"], gap["high"], mark))
            table.append({"title": title, "n": value["n"], "arm": one.name, "mean": mean, "gap": gap})
        means.append(ChartRow(title, note, points))
        gaps.append(ChartRow(title, note, differences, blank=len(points) - len(differences)))
    panels: list[tuple[Markup, Markup | str]] = []
    shares = [all(0 <= point.mean <= 1 for point in row.points) for row in means]
    for places in (
        [place for place, share in enumerate(shares) if share],
        *([place] for place, share in enumerate(shares) if not share),
    ):
        if not places:
            continue
        about = f"{suite}, {html.words(heading)}, {means[places[0]].title}"
        changed = [gaps[place] for place in places if gaps[place].points]
        panels.append(
            (
                charts.intervals([means[place] for place in places], f"{about}: means of all arms", differences=False),
                charts.intervals(changed, f"{about}: differences from the base", differences=True) if changed else "",
            )
        )
    return {
        "title": html.words(heading),
        "breakdown": broken,
        "size": len(rows),
        "panels": panels,
        "table": table,
        "absent": absent,
        "unreadable": unreadable,
    }


def planes(series: Sequence[Series]) -> list[tuple[str, Any]]:
    """Wanted refusals against unwanted ones, in the suites that measure both."""
    plots = []
    for suite in dict.fromkeys(name for one in series for name in one.run.suites):
        points = [point for one in series if (point := _wanted_and_not(suite, one))]
        if points:
            titles = ("harmless prompts refused", "hazardous prompts refused")
            plots.append(
                (ABOUT[suite][0], charts.plane(points, titles, f"{suite}: hazardous against harmless prompts refused"))
            )
    return plots


def _wanted_and_not(suite: str, one: Series) -> tuple[Point, Point] | None:
    measured = one.run.suites.get(suite, {})
    if "refusal" in measured:
        harmless, hazardous = (measured["refusal"].get(name, {}) for name in ("harmless_refused", "hazardous_refused"))
        y = hazardous.get(one.arm)
    else:
        harmless, unsafe = measured.get("refused_safe", {}), measured.get("complied_unsafe", {}).get(one.arm)
        y = unsafe and {"mean": 1 - unsafe["mean"], "low": _less(unsafe["high"]), "high": _less(unsafe["low"])}
    x = harmless.get(one.arm)
    return (Point(one.name, one.colour, **x), Point(one.name, one.colour, **y)) if x and y else None


def _less(share: float | None) -> float | None:
    return None if share is None else 1 - share


# Answers


def heat(of: Run) -> list[dict[str, Any]]:
    """For refusal and each contemplative score, and each arm: mean and n by hazard and principle."""
    if not of.prompts:
        return []
    hazards = sorted({prompt.hazard for prompt in of.prompts}, key=lambda hazard: (hazard in HARMLESS, hazard))
    principles = sorted({prompt.principle for prompt in of.prompts}, key=lambda name: (name in HARMLESS, name))
    tables = []
    for score in ("refused", *scores.FAMILIES["contemplative"]):
        for arm, answers in of.answers.items():
            cells = defaultdict(list)
            by_prompt = {answer.prompt_id: answer for answer in answers}
            for prompt in of.prompts:
                answer = by_prompt[prompt.prompt_id]
                value = float(refused(answer.refusal)) if score == "refused" else answer.scores[score]
                cells[prompt.hazard, prompt.principle].append(value)
            rows = [
                (hazard, hazard in HARMLESS, [_cell(cells.get((hazard, principle), [])) for principle in principles])
                for hazard in hazards
            ]
            tables.append({"score": score, "arm": arm, "principles": principles, "rows": rows})
    return tables


def _cell(values: Sequence[float]) -> tuple[float, int] | None:
    return (sum(values) / len(values), len(values)) if values else None
