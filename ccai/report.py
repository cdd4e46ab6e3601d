"""The report of a run: one HTML page that asks nobody for anything.

metrics/report.html has the same bytes for the same results; metrics/runtime/report.html has time and cost as well.

python -m ccai.report                 # both again, from the files at hand; the second alone where answers are not here
python -m ccai.report REV_A REV_B     # two commits, branches or experiments side by side: metrics/compare.html
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from markupsafe import Markup

from ccai import charts, curves, page, results, rules
from ccai.charts import Point, Row
from ccai.errors import run
from ccai.outcomes import refused, surely, violated
from ccai.records import HARMLESS, Prompt, digest, write_text
from ccai.results import Run

PAGE = Path("metrics/report.html")
TIMED = Path("metrics/runtime/report.html")
COMPARED = Path("metrics/compare.html")

MOST = 200
"""Prompts whose answers are shown; of more a sample is drawn, evenly over hazards and principles."""

FEW = 5
"""Prompts below which a cell of the heat map tells of single answers."""

ABOUT = {
    "heldout": ("Held-out prompts", "Prompts of the training sources that were kept from training."),
    "jailbreaks": ("Jailbreaks", "Prompts in wrappers that try to get round a refusal. Success is an answer to them."),
    "over_refusal": ("Over-refusal", "Safe prompts that look unsafe, and unsafe ones beside them."),
    "helpfulness": (
        "Helpfulness",
        "General questions. A judge reads two answers in both orders; if it wavers: a tie.",
    ),
    "capability": ("Capability", "Tasks of EleutherAI's language model evaluation harness."),
    "cooperation": ("Cooperation", "Iterated prisoner's dilemma against fixed strategies."),
    "traits": ("Traits", "Questions with two options, by probability. Which end is better is for the reader to say."),
    "calibration": ("Calibration", "Questions that can be answered, questions that can't, and how sure the model is."),
    "bias": ("Bias", "Questions about two people whose text does not say who is meant: is anybody named, and whom?"),
}
"""What a suite is called and what it asks, by its name; docs/EVALUATION.md says more."""

VERDICTS = {
    "safety": {
        "met": "Safer than the base, by the metric that was named before the run.",
        "not met": "Less safe than the base, by the metric that was named before the run.",
        "can't tell": "This run can't tell whether the tuned model is safer than the base.",
    },
    "helpfulness": {
        "met": "As helpful as the base: at most the loss that was accepted before the run.",
        "not met": "Less helpful than the base, by more than was accepted before the run.",
        "can't tell": "This run can't tell whether more helpfulness was lost than was accepted.",
    },
}

COLOURS = {"base": 0, "prompted": 1, "tuned": 2}
"""Places in `charts.ARMS`; other arms take those that follow."""

OUTCOMES = {"wins", "ties", "losses"}
"""Counts that a suite gives for each arm that was compared with the base."""


class Series(NamedTuple):
    """An arm of a run, as it is named and coloured on the page."""

    name: str
    colour: int
    run: Run
    arm: str


def write() -> None:
    """Write both pages of the run whose files lie here. Raises UserError if its metrics are missing or of old."""
    _write(results.here(), {PAGE: False, TIMED: True})


def _write(of: Run, pages: Mapping[Path, bool]) -> None:
    """Write some of its pages, each with what the run cost and the commit or, since these change though the results
    do not, without."""
    told = _told(of)
    for path, timed in pages.items():
        write_text(path, page.render("report.html.j2", timed=timed, **told))


def _told(of: Run) -> dict[str, Any]:
    """What the page of one run shows."""
    series = [Series(arm, colour, of, arm) for arm, colour in _colours(of.arms).items()]
    return {
        "title": f"{of.metrics['model']}: is it safer, is it still helpful?",
        "run": of,
        "series": series,
        "verdicts": _verdicts(of),
        "tone": _tone(of),
        "suites": _suites(series),
        "planes": _planes(series),
        "heat": _heat(of),
        "training": curves.told([curves.read(of.name, COLOURS["tuned"], of.read)]),
        "examples": _examples(series),
        "constitution": _constitution(of),
        "lineage": _lineage(of),
        "params": _flat(of.params),
        "costs": _costs(of.runtime),
        "few": FEW,
    }


def comparison(a: Run, b: Run) -> str:
    """The page of two runs side by side."""
    letters = (("A", 1, a), ("B", 2, b))
    series = [
        Series(f"{arm}, {letter}", colour, of, arm)
        for arm in dict.fromkeys(a.arms + b.arms)
        for letter, colour, of in letters
        if arm in of.arms
    ]
    flat = [_flat(of.params) for of in (a, b)]
    changed = [
        (key, *(values.get(key, "") for values in flat))
        for key in sorted(flat[0].keys() | flat[1].keys())
        if flat[0].get(key) != flat[1].get(key)
    ]
    return page.render(
        "compare.html.j2",
        title=f"{a.name} beside {b.name}",
        runs=[("A", a, _verdicts(a)), ("B", b, _verdicts(b))],
        series=series,
        suites=_suites(series),
        training=curves.told([curves.read(f"{letter}: {of.name}", place, of.read) for letter, place, of in letters]),
        examples=_examples(series),
        changed=changed,
    )


def _colours(arms: Sequence[str]) -> dict[str, int]:
    others = [arm for arm in arms if arm not in COLOURS]
    first = len(COLOURS)
    rest = {arm: first + place % (len(charts.ARMS) - first) for place, arm in enumerate(others)}
    return {arm: (COLOURS | rest)[arm] for arm in arms}


# Verdict


def _verdicts(of: Run) -> list[dict[str, Any]]:
    """What was registered, in words and as a plot."""
    return [
        {"aim": aim, "words": VERDICTS[aim][value["verdict"]], "why": _why(aim, value), "plot": _gap(value), **value}
        for aim, value in of.metrics["registered"].items()
    ]


def _why(aim: str, value: Mapping[str, Any]) -> str:
    """How the interval leads to the verdict."""
    if not value["n"]:
        if "unreadable" in value:
            return f"It was not measured: of {value['unreadable']} items none could be read for every arm."
        return "It was not measured: no such prompts, or the judge failed its exam."
    if value["low"] is None:
        return "Too few prompts differ for an interval."
    line = f"a change of {charts.number(_limit(value), signed=True)}" if value["bound"] else "no change"
    if value["verdict"] == "can't tell":
        return f"The interval holds {line}: the data fit with better and with worse than that."
    side = "better" if value["verdict"] == "met" else "worse"
    return f"The whole interval lies on the {side} side of {line}."


def _limit(value: Mapping[str, Any]) -> float:
    """The difference from which on it is met."""
    return float(value["bound"] if value["better"] == "less" else -value["bound"])


def _gap(value: Mapping[str, Any]) -> Any:
    if not value["n"]:
        return ""
    title = f"tuned minus base; {value['better']} is better"
    row = Row(title, f"n {value['n']}", [Point("", 2, value["mean"], value["low"], value["high"])])
    about = f"{page.words(value['metric'])}: {title}"
    return charts.intervals([row], about, differences=True, bound=_limit(value))


def _tone(of: Run) -> list[dict[str, Any]]:
    """Held-out scores that tell of manner, tuned minus base: no part of the verdict."""
    heldout = of.metrics.get("heldout", {})
    found = []
    for family in rules.FAMILIES:
        for name, value in heldout.get(family, {}).items() if family != "safety" else ():
            if value["n"] and "tuned" in value["difference"]:
                found.append({"name": name, "family": family, **value["difference"]["tuned"]})
    return found


# Suites


class Leaf(NamedTuple):
    """An end of a suite's metrics: a measure, a figure (or one for each arm), or wins, ties and losses of each arm."""

    kind: Literal["measure", "figure", "outcomes"]
    value: Any


def _leaves(
    nested: Mapping[str, Any], arms: Sequence[str], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Leaf]]:
    for name, value in nested.items():
        here = (*path, name)
        if isinstance(value, str | int | float):
            yield here, Leaf("figure", value)
        elif isinstance(value, dict) and "n" in value:
            yield here, Leaf("measure", value)
        elif isinstance(value, dict):
            by_arm = bool(value) and value.keys() <= set(arms)
            if by_arm and all(isinstance(of_arm, dict) and of_arm.keys() == OUTCOMES for of_arm in value.values()):
                yield here, Leaf("outcomes", value)
            elif by_arm and not any(isinstance(of_arm, dict | list) for of_arm in value.values()):
                yield here, Leaf("figure", value)
            else:
                yield from _leaves(value, arms, here)


def _suites(series: Sequence[Series]) -> list[dict[str, Any]]:
    """Every suite of the runs: groups of measures that stand together, breakdowns, and other figures."""
    return [_suite(name, series) for name in dict.fromkeys(name for one in series for name in one.run.suites)]


def _suite(suite: str, series: Sequence[Series]) -> dict[str, Any]:
    found = [dict(_leaves(one.run.suites.get(suite, {}), one.run.arms)) for one in series]
    groups: dict[tuple[str, ...], dict[str, list[dict[str, Any]]]] = defaultdict(dict)
    figures, outcomes = [], []
    for path in dict.fromkeys(path for leaves in found for path in leaves):
        of_series = [leaves.get(path) for leaves in found]
        kind = next(leaf.kind for leaf in of_series if leaf)
        values = [leaf.value if leaf else None for leaf in of_series]
        if kind == "figure":
            each = [
                value.get(one.arm) if isinstance(value, dict) else value
                for one, value in zip(series, values, strict=True)
            ]
            figures.append((page.words(path), each))
        elif kind == "outcomes":
            bars = [
                (one.name, value[one.arm])
                for one, value in zip(series, values, strict=True)
                if value is not None and one.arm in value
            ]
            outcomes.append((page.words(path), charts.outcomes(bars, f"{suite}: {page.words(path)}")))
        else:
            broken = next((place for place, name in enumerate(path) if name.startswith("by_")), len(path) - 2)
            heading = path[: broken + 1]
            groups[heading][page.words(path[broken + 1 :])] = [value or {"n": 0} for value in values]
    shown = [_group(suite, heading, rows, series) for heading, rows in groups.items()]
    return {
        "name": suite,
        "title": ABOUT.get(suite, (page.words(suite).capitalize(), ""))[0],
        "about": ABOUT.get(suite, ("", ""))[1],
        "groups": sorted(shown, key=lambda group: bool(group["breakdown"])),
        "figures": figures,
        "outcomes": outcomes,
    }


def _group(
    suite: str, heading: tuple[str, ...], rows: Mapping[str, Sequence[dict[str, Any]]], series: Sequence[Series]
) -> dict[str, Any]:
    """Plots and table of measures under one heading. Shares and scores have one axis, others one each."""
    means, gaps, table, absent, unreadable = [], [], [], [], []
    for title, values in rows.items():
        counts = dict.fromkeys(value["n"] for value in values if value["n"])
        if not counts:
            asked = max(value.get("unreadable", 0) for value in values)
            unreadable.append(f"{title} ({asked})") if asked else absent.append(title)
            continue
        note = "n " + " and ".join(map(str, counts))
        points, differences = [], []
        for one, value in zip(series, values, strict=True):
            if one.arm not in value:
                continue
            mean, gap = value[one.arm], value.get("difference", {}).get(one.arm)
            points.append(Point(one.name, one.colour, mean["mean"], mean["low"], mean["high"]))
            if gap:
                told = "*" if surely(gap) else ""
                differences.append(Point(one.name, one.colour, gap["mean"], gap["low"], gap["high"], told))
            table.append({"title": title, "n": value["n"], "arm": one.name, "mean": mean, "gap": gap})
        means.append(Row(title, note, points))
        gaps.append(Row(title, note, differences, blank=len(points) - len(differences)))
    panels: list[tuple[Markup, Markup | str]] = []
    shares = [all(0 <= point.mean <= 1 for point in row.points) for row in means]
    for places in (
        [place for place, share in enumerate(shares) if share],
        *([place] for place, share in enumerate(shares) if not share),
    ):
        if not places:
            continue
        about = f"{suite}, {page.words(heading)}, {means[places[0]].title}"
        changed = [gaps[place] for place in places if gaps[place].points]
        panels.append(
            (
                charts.intervals([means[place] for place in places], f"{about}: means of all arms", differences=False),
                charts.intervals(changed, f"{about}: differences from the base", differences=True) if changed else "",
            )
        )
    broken = bool(heading) and heading[-1].startswith("by_")
    return {
        "title": page.words(heading),
        "breakdown": broken,
        "size": len(rows),
        "panels": panels,
        "table": table,
        "absent": absent,
        "unreadable": unreadable,
    }


def _planes(series: Sequence[Series]) -> list[tuple[str, Any]]:
    """Refusals that are wanted against those that are not, in the suites that know both."""
    found = []
    for suite in dict.fromkeys(name for one in series for name in one.run.suites):
        points = [point for one in series if (point := _wanted_and_not(suite, one))]
        if points:
            titles = ("harmless prompts refused", "hazardous prompts refused")
            found.append(
                (ABOUT[suite][0], charts.plane(points, titles, f"{suite}: hazardous against harmless prompts refused"))
            )
    return found


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


def _heat(of: Run) -> list[dict[str, Any]]:
    """For refusal and each contemplative score, and each arm: mean and n by hazard and principle."""
    if not of.prompts:
        return []
    hazards = sorted({prompt.hazard for prompt in of.prompts}, key=lambda hazard: (hazard in HARMLESS, hazard))
    principles = sorted({prompt.principle for prompt in of.prompts}, key=lambda name: (name in HARMLESS, name))
    tables = []
    for score in ("refused", *rules.FAMILIES["contemplative"]):
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


def _examples(series: Sequence[Series]) -> dict[str, Any]:
    """Answers of all arms to the same prompts, by hazard and principle; at most `MOST` prompts."""
    answered = [one for one in series if one.run.answers]
    given = [{answer.prompt_id: answer for answer in one.run.answers[one.arm]} for one in answered]
    prompts = {prompt.prompt_id: prompt for one in answered for prompt in one.run.prompts}
    shared = [prompt for key, prompt in prompts.items() if all(key in answers for answers in given)]
    shown = sample(shared, MOST)
    rows: list[dict[str, Any]] = []
    for prompt in shown:
        answers = [answers[prompt.prompt_id] for answers in given]
        marks = [f"{place}:{answer.refusal}" for place, answer in enumerate(answers)]
        marks += [f"{place}:harmful" for place, answer in enumerate(answers) if violated(answer.harmful)]
        if len({answer.refusal for answer in answers}) > 1:
            marks.append("differ")
        rows.append({"prompt": prompt, "answers": list(zip(answered, answers, strict=True)), "marks": " ".join(marks)})
    return {
        "rows": rows,
        "of": len(shared),
        "arms": [(place, one.name) for place, one in enumerate(answered)],
        "hazards": sorted({prompt.hazard for prompt in shown}),
        "principles": sorted({prompt.principle for prompt in shown}),
        "judged": any(answer.harmful is not None for row in rows for _, answer in row["answers"]),
        "missing": dict.fromkeys(f"{one.run.name}: {one.run.missing}" for one in series if one.run.missing),
    }


def sample(prompts: Sequence[Prompt], most: int) -> list[Prompt]:
    """At most so many prompts, as evenly over hazard and principle as they allow, whatever their order."""
    strata: dict[tuple[str, str], list[Prompt]] = defaultdict(list)
    for prompt in sorted(prompts, key=lambda prompt: digest(prompt.prompt_id)):
        strata[prompt.hazard, prompt.principle].append(prompt)
    ranked = [(rank, key, prompt) for key, of in strata.items() for rank, prompt in enumerate(of)]
    taken = sorted(ranked, key=lambda entry: entry[:2])[:most]
    return [prompt for _, _, prompt in sorted(taken, key=lambda entry: (entry[1], entry[0]))]


# Where it comes from


def _lineage(of: Run) -> list[dict[str, Any]]:
    """The stages before eval as dvc.lock has them. Eval's own entry is written after its page."""
    stages = []
    for name, stage in of.lock.get("stages", {}).items():
        if name != "eval":
            files = [("out", out) for out in stage.get("outs", [])]
            files = [("in", dep) for dep in stage.get("deps", [])] + files
            stages.append(
                {
                    "name": name,
                    "data": [(way, file) for way, file in files if not _code(file)],
                    "code": [file for way, file in files if _code(file)],
                }
            )
    return stages


def _constitution(of: Run) -> tuple[str, str] | None:
    """Its path and md5, as the critiques stage read it; None without dvc.lock."""
    path = of.params["critiques"]["constitution"]
    deps = of.lock.get("stages", {}).get("critiques", {}).get("deps", [])
    return next(((path, dep["md5"]) for dep in deps if dep["path"] == path), None)


def _code(file: Mapping[str, Any]) -> bool:
    return str(file["path"]).startswith(("ccai/", "stages/"))


def _costs(runtime: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A line for each stage, and under eval one for each suite and arm."""
    rows = []
    for stage, told in runtime.items():
        rows.append({"stage": stage, "part": "", **told})
        for part, cost in told.items():
            if isinstance(cost, dict):
                rows.append({"stage": "", "part": part, **cost})
                rows += [
                    {"stage": "", "part": f"{part}: {arm}", **of_arm}
                    for arm, of_arm in cost.items()
                    if isinstance(of_arm, dict)
                ]
    return rows


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in nested.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            text = _unplaced(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            flat[f"{prefix}{name}"] = text
    return flat


def _unplaced(value: str) -> str:
    """A path of this machine without the folders that lead there: the page is for others, too."""
    return f"…/{Path(value).name}" if Path(value).is_absolute() else value


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m ccai.report", description="Write a run's report as one HTML page.")
    parser.add_argument("revisions", nargs="*", metavar="REV", help="two commits, branches, tags or experiments")
    revisions = parser.parse_args().revisions
    if len(revisions) not in (0, 2):
        parser.error("name two revisions, or none for the run that lies here")
    if revisions:
        write_text(COMPARED, comparison(*map(results.at, revisions)))
        print(COMPARED)
    else:
        write_at_hand()


def write_at_hand() -> None:
    """Write what can be written from the files at hand, and say which pages that are."""
    of = results.here()
    # Without the answers, and of another's run, the first page would be another than the one that DVC has.
    pages = {TIMED: True} if of.missing or of.origin else {PAGE: False, TIMED: True}
    _write(of, pages)
    print(", ".join(map(str, pages)))


if __name__ == "__main__":
    run(main)
