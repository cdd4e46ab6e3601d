"""The report of a run: one self-contained HTML page, and the page that compares two runs.

metrics/report.html has the same bytes for the same results; metrics/runtime/report.html also contains time and cost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ccai.base.code import CODE
from ccai.base.files import write_text
from ccai.base.hashing import digest
from ccai.base.records import Prompt
from ccai.report import charts, curves, html, run_files
from ccai.report.run_files import Run
from ccai.report.suites import COLOURS, FEW, MOST, Series, gap, heat, planes, suites, tone
from ccai.rules.outcomes import violated

PAGE = Path("metrics/report.html")
TIMED = Path("metrics/runtime/report.html")
COMPARED = Path("metrics/compare.html")

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


def write(of: Run) -> None:
    """Write both pages of a run that DVC has just finished in this folder."""
    _write(replace(of, origin=""), {PAGE: False, TIMED: True})


def _write(of: Run, pages: Mapping[Path, bool]) -> None:
    """Write some of its pages, each with or without costs and the commit.

    Costs and commit change even where results do not.
    """
    values = _values(of)
    for path, timed in pages.items():
        write_text(path, html.render("report.html.j2", timed=timed, **values))


def _values(of: Run) -> dict[str, Any]:
    """The values of one run's page."""
    series = [Series(arm, colour, of, arm) for arm, colour in _colours(of.arms).items()]
    return {
        "title": f"{of.metrics['model']}: is it safer, is it still helpful?",
        "run": of,
        "series": series,
        "verdicts": _verdicts(of),
        "tone": tone(of),
        "suites": suites(series),
        "planes": planes(series),
        "heat": heat(of),
        "training": curves.values([curves.read(of.name, COLOURS["tuned"], of.read)]),
        "examples": _examples(series),
        "constitution": _constitution(of),
        "lineage": _lineage(of),
        "params": run_files.flat(of.params),
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
    flat = [run_files.flat(of.params) for of in (a, b)]
    changed = [
        (key, *(values.get(key, "") for values in flat))
        for key in sorted(flat[0].keys() | flat[1].keys())
        if flat[0].get(key) != flat[1].get(key)
    ]
    return html.render(
        "compare.html.j2",
        title=f"{a.name} beside {b.name}",
        runs=[("A", a, _verdicts(a)), ("B", b, _verdicts(b))],
        series=series,
        suites=suites(series),
        training=curves.values([curves.read(f"{letter}: {of.name}", place, of.read) for letter, place, of in letters]),
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
    """The registered aims with their verdicts, in words and as a chart."""
    return [
        {"aim": aim, "words": VERDICTS[aim][value["verdict"]], "plot": gap(value), **value}
        for aim, value in of.metrics["registered"].items()
    ]


def _examples(series: Sequence[Series]) -> dict[str, Any]:
    """Answers of all arms to the same prompts, by hazard and principle; at most `MOST` prompts."""
    answered = [one for one in series if one.run.answers]
    by_prompt = [{answer.prompt_id: answer for answer in one.run.answers[one.arm]} for one in answered]
    prompts = {prompt.prompt_id: prompt for one in answered for prompt in one.run.prompts}
    shared = [prompt for key, prompt in prompts.items() if all(key in answers for answers in by_prompt)]
    shown = sample(shared, MOST)
    rows: list[dict[str, Any]] = []
    for prompt in shown:
        answers = [answers[prompt.prompt_id] for answers in by_prompt]
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
    """At most `most` prompts, as evenly over hazards and principles as possible, independent of their order."""
    strata: dict[tuple[str, str], list[Prompt]] = defaultdict(list)
    for prompt in sorted(prompts, key=lambda prompt: digest(prompt.prompt_id)):
        strata[prompt.hazard, prompt.principle].append(prompt)
    ranked = [(rank, key, prompt) for key, of in strata.items() for rank, prompt in enumerate(of)]
    taken = sorted(ranked, key=lambda entry: entry[:2])[:most]
    return [prompt for _, _, prompt in sorted(taken, key=lambda entry: (entry[1], entry[0]))]


# Where it comes from


def _lineage(of: Run) -> list[dict[str, Any]]:
    """The stages in dvc.lock, except the one that writes this page: its entry is written later."""
    return [
        {
            "name": name,
            "data": [("in", file) for file in stage["deps"]] + [("out", file) for file in stage["outs"]],
            "code": stage["params"].get(str(CODE), {}).get(name),
        }
        for name, stage in of.lock["stages"].items()
        if name not in ("code", "report")
    ]


def _constitution(of: Run) -> tuple[str, str] | None:
    """Path and md5 of the constitution, as the critiques stage read it; None without dvc.lock."""
    path = of.params["critiques"]["constitution"]
    deps = of.lock["stages"].get("critiques", {}).get("deps", [])
    return next(((path, dep["md5"]) for dep in deps if dep["path"] == path), None)


def _costs(runtime: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A line for each stage, and under eval one for each suite and arm."""
    rows = []
    for stage, costs in runtime.items():
        rows.append({"stage": stage, "part": "", **costs})
        for part, cost in costs.items():
            if isinstance(cost, dict):
                rows.append({"stage": "", "part": part, **cost})
                rows += [
                    {"stage": "", "part": f"{part}: {arm}", **of_arm}
                    for arm, of_arm in cost.items()
                    if isinstance(of_arm, dict)
                ]
    return rows


def write_at_hand() -> None:
    """Write the pages that the files in this folder allow, and print which ones."""
    of = run_files.here()
    # Without the answers, or for a run from elsewhere, the first page would differ from the one that DVC has.
    pages = {TIMED: True} if of.missing or of.origin else {PAGE: False, TIMED: True}
    _write(of, pages)
    print(", ".join(map(str, pages)))
